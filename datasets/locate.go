package datasets

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dataVariable is the environment variable that names the user's folder of data sets.
const dataVariable = "GOQAT_DATA"

// Locate returns the folder that holds a registered data set's files: dir if it is not "". Else the first of
//
//	$GOQAT_DATA/NAME
//	$GOQAT_DATA
//	the cache folder that Fetch fills: os.UserCacheDir()/goqat/NAME
//	the folders where packages of operating systems put them
//
// that does. If none does, the error is a *NotFoundError. A folder that holds broken files is returned;
// reading them tells what is wrong.
func Locate(name, dir string) (string, error) {
	files, err := filesOf(name)
	if err != nil {
		return "", err
	}
	if dir != "" {
		if err := files.in(dir); err != nil {
			return "", fmt.Errorf("%s: folder %s: %w", name, dir, err)
		}
		return dir, nil
	}
	places := files.places(name)
	for _, place := range places {
		if _, _, err := files.find(os.DirFS(place)); err == nil {
			return place, nil
		}
	}
	return "", &NotFoundError{Name: name, Places: places, Fetchable: len(files.Downloads) > 0}
}

// NotFoundError says that a data set is in none of its places. It is a fs.ErrNotExist.
type NotFoundError struct {
	Name      string
	Places    []string // that were tried
	Fetchable bool     // Fetch would help
}

func (e *NotFoundError) Error() string {
	help := "name its folder or set $" + dataVariable
	if e.Fetchable {
		help = fmt.Sprintf("`goqat data fetch %s` downloads it; or %s", e.Name, help)
	}
	return fmt.Sprintf("datasets: %s is not in %s: %s", e.Name, strings.Join(e.Places, ", "), help)
}

// Unwrap returns fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// filesOf returns what the authors of a data set publish.
func filesOf(name string) (*Files, error) {
	spec, err := Lookup(name)
	if err != nil {
		return nil, err
	}
	if spec.Files == nil {
		return nil, fmt.Errorf("datasets: %s has no published files to look for: %s", name, spec.Doc)
	}
	return spec.Files, nil
}

// in says why the members are not in a folder.
func (f *Files) in(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("datasets: %w", err)
	}
	if !info.IsDir() {
		return formatErrorf(dir, "not a folder")
	}
	_, _, err = f.find(os.DirFS(dir))
	return err
}

// places returns the default folders, in the order in which they are looked at.
func (f *Files) places(name string) []string {
	var places []string
	if data := os.Getenv(dataVariable); data != "" {
		places = append(places, filepath.Join(data, name), data)
	}
	if cache, err := cacheFolder(name); err == nil {
		places = append(places, cache)
	}
	return append(places, f.Installed...)
}

// cacheFolder returns where Fetch puts a data set.
func cacheFolder(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("datasets: no place for downloads: %w", err)
	}
	return filepath.Join(cache, "goqat", name), nil
}
