//go:build !windows

package atomicfile

import "os"

// syncFolder flushes the folder's list of names, without which a power cut may undo the rename.
func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
