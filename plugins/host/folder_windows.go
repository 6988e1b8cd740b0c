package host

import "os"

// folder is for a socket, which plugins have none of on Windows.
type folder struct{ path string }

func newFolder() (*folder, error) {
	path, err := os.MkdirTemp("", "scepgate-plugin-")
	return &folder{path: path}, err
}

func (f *folder) remove() { _ = os.RemoveAll(f.path) }
