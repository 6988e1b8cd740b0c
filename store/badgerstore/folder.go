package badgerstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// prepareFolder makes the folder, or makes sure that it is a store's or empty,
// and that nobody else can read it. It returns its absolute name.
func prepareFolder(path string) (string, error) {
	if path == "" {
		return "", errors.New("no path")
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", errors.New("not a folder")
	}
	// Before anything of it is touched: a path that was mistyped must not have
	// its mode changed or a database put into it.
	if err := onlyStore(dir); err != nil {
		return "", err
	}
	return dir, tighten(dir, info)
}

// onlyStore accepts an empty folder and one that holds nothing but a database.
func onlyStore(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "MANIFEST", "MANIFEST-REWRITE", "KEYREGISTRY", "REWRITE-KEYREGISTRY", "LOCK", "DISCARD", "lost+found":
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".mem", ".vlog", ".sst":
			continue
		}
		return fmt.Errorf("the folder holds %.64q, which is no part of a store; name an empty folder", e.Name())
	}
	return nil
}
