package caddymodule

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"
)

// watchEvery is how often the files that the configuration names are looked at.
// They are read, not subscribed to: it works the same on every file system and
// for every way of replacing a file.
const watchEvery = 30 * time.Second

// fileWatcher notices that files changed.
type fileWatcher struct {
	mu      sync.Mutex // guards watched; held while a reload runs
	watched []*watchedFiles

	stop func() // nil while not running
}

// watchedFiles is a set of files that are only valid together.
type watchedFiles struct {
	name   string
	paths  []string
	reload func() error
	last   [sha256.Size]byte // digest of what was last looked at, used or not
}

// add watches paths. Whoever calls it reads the files afterwards, so that a
// change in between is noticed.
func (w *fileWatcher) add(name string, paths []string, reload func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched = append(w.watched, &watchedFiles{name: name, paths: paths, reload: reload, last: digestFiles(paths)})
}

// check reloads what has changed. Each content is tried once: one that is not
// valid is reported once, and what was loaded before stays in use.
func (w *fileWatcher) check(logger *zap.Logger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, files := range w.watched {
		digest := digestFiles(files.paths)
		if digest == files.last {
			continue
		}
		files.last = digest
		if err := files.reload(); err != nil {
			logger.Error("changed files are not usable; keeping what was loaded", zap.String("of", files.name), zap.Error(err))
			continue
		}
		logger.Info("changed files loaded", zap.String("of", files.name))
	}
}

// start checks the files, and calls also, until halt.
func (w *fileWatcher) start(logger *zap.Logger, also func()) {
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				w.check(logger)
				also()
			}
		}
	})
	w.stop = sync.OnceFunc(func() {
		close(done)
		work.Wait()
	})
}

// halt ends what start began. It is safe on the zero value and may be called
// more than once.
func (w *fileWatcher) halt() {
	if w.stop != nil {
		w.stop()
	}
}

// digestFiles says whether anything about the files changed: content, mode, or
// that they can be read at all.
func digestFiles(paths []string) (sum [sha256.Size]byte) {
	all := sha256.New()
	for _, path := range paths {
		digestFile(all, path)
	}
	copy(sum[:], all.Sum(nil))
	return sum
}

func digestFile(all hash.Hash, path string) {
	raw, mode, err := readUpTo(maxCRLSize, "watching", path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(all, "%q missing\n", path)
	case err != nil:
		fmt.Fprintf(all, "%q unreadable\n", path)
	default:
		fmt.Fprintf(all, "%q %o %x\n", path, mode, sha256.Sum256(raw))
	}
}
