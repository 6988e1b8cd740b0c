//go:build !unix

package badgerstore

func inChild() bool { return false }
