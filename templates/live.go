package templates

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Live are the texts of a deployment's file, read again when the file changes.
// A file that is broken then changes nothing: the texts before it stay in use,
// so that no message ever waits for somebody to repair it. Its methods may be
// called from any goroutine.
type Live struct {
	file  string
	texts atomic.Pointer[Texts]

	mu     sync.Mutex
	read   stamp // of the file as it was last looked into
	broken error // what was wrong with it, nil for nothing
}

// stamp tells one content of a file from another.
type stamp struct {
	size     int64
	modified time.Time
}

// Watch reads a deployment's file as [Load] does. With file empty the texts are
// the built-in ones for ever.
func Watch(file string) (*Live, error) {
	l := &Live{file: file}
	if file == "" {
		l.texts.Store(Builtin())
		return l, nil
	}
	_, err := l.Reload(true)
	return l, err
}

// Texts returns the texts of the moment; before the first good reading, nil.
func (l *Live) Texts() *Texts { return l.texts.Load() }

// Reload reads the file if it has changed since it was last looked into, or in
// any case when it is told to. It reports whether the texts are new ones. What
// is wrong with the file is returned as often as it is asked for, until it is
// repaired.
func (l *Live) Reload(always bool) (changed bool, err error) {
	if l.file == "" {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	info, err := os.Stat(l.file)
	if err != nil {
		l.read, l.broken = stamp{}, fmt.Errorf("read texts: %w", err)
		return false, l.broken
	}
	now := stamp{info.Size(), info.ModTime()}
	if now == l.read && !always {
		return false, l.broken
	}
	texts, err := Load(l.file)
	l.read, l.broken = now, err
	if err != nil {
		return false, err
	}
	l.texts.Store(texts)
	return true, nil
}
