// Package atomicfile writes files that are whole or absent, whenever the program is killed.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write puts data into the file at path, replacing what was there. The data are written to a temporary name in the
// same folder, flushed to disk and renamed, and the folder is flushed, so that a reader sees the old content or the
// new one, never a part. perm is set exactly, whatever the process's file mode mask. On failure the temporary file
// is removed and the old content stays.
func Write(path string, data []byte, perm os.FileMode) error {
	if err := write(path, data, perm); err != nil {
		return fmt.Errorf("atomicfile: write %s: %w", path, err)
	}
	return nil
}

func write(path string, data []byte, perm os.FileMode) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	err = fill(f, data, perm)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		// The first error is the one to report; a leftover temporary file harms nobody.
		_ = os.Remove(f.Name())
		return err
	}
	return syncFolder(folder)
}

// fill writes, flushes and closes f.
func fill(f *os.File, data []byte, perm os.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
