package datasets

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

func init() {
	Register(Spec{
		Name:    "folder",
		Doc:     "your own pictures, PNG or JPEG, as DIR/train/CLASS/* and DIR/test/CLASS/* or DIR/CLASS/*, scaled to 3×32×32",
		Source:  "yours",
		License: "yours",
		Load: func(dir string) (Split, error) {
			if dir == "" {
				return Split{}, errors.New("datasets: folder: name the folder of your pictures")
			}
			return LoadFolder(dir, 3, 32, 32)
		},
	})
}

// heldOut is the period with which pictures go to the test part where the folder has no parts of its own.
const heldOut = 5

// LoadFolder reads PNG and JPEG pictures as images of channels (1 or 3) × height × width, each by ReadImage. The folder
// has one of two forms:
//
//	DIR/train/CLASS/*  DIR/test/CLASS/*  parts that are given; a class may lack test pictures, not training pictures
//	DIR/CLASS/*                          one fifth of each class, the 2nd, 7th, 12th… of its files, is the test part
//
// Classes are the names of the folders, sorted bytewise; images follow classes and, within one, the names of files,
// sorted likewise. Names that begin with a point and files whose names don't end in .png, .jpg or .jpeg (in any case) are
// ignored. Pixels are scaled to [0, 1] and not shifted; see Dataset.Normalized for other scales.
//
// Pictures are decoded on all processors; result and error are the same on any number of them.
func LoadFolder(dir string, channels, height, width int) (Split, error) {
	split, err := loadFolder(dir, channels, height, width)
	if err != nil {
		return Split{}, fmt.Errorf("folder %s: %w", dir, err)
	}
	return split, nil
}

func loadFolder(dir string, channels, height, width int) (Split, error) {
	train, test, classes, err := listPictures(dir)
	if err != nil {
		return Split{}, err
	}
	var split Split
	for _, part := range []struct {
		d        **Dataset
		pictures []picture
	}{{&split.Train, train}, {&split.Test, test}} {
		d := &Dataset{Name: filepath.Base(dir), Channels: channels, Height: height, Width: width, Classes: classes}
		if err := d.readPictures(part.pictures); err != nil {
			return Split{}, err
		}
		*part.d = d
	}
	return split, nil
}

// picture is a file and its class.
type picture struct {
	path  string
	class int
}

// listPictures finds both parts of a folder of either form.
func listPictures(dir string) (train, test []picture, classes []string, err error) {
	folders, err := subfolders(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	hasTrain, hasTest := false, false
	for _, name := range folders {
		hasTrain = hasTrain || name == "train"
		hasTest = hasTest || name == "test"
	}
	switch {
	case hasTrain && hasTest:
		train, test, classes, err = listParts(dir)
	case hasTrain || hasTest:
		err = errors.New("datasets: train and test must both be there, or neither")
	default:
		train, test, classes, err = listClasses(dir, folders)
	}
	if err == nil && len(test) == 0 {
		err = errors.New("datasets: no pictures for the test part")
	}
	return train, test, classes, err
}

// listParts lists DIR/train/CLASS and DIR/test/CLASS.
func listParts(dir string) (train, test []picture, classes []string, err error) {
	if classes, err = subfolders(filepath.Join(dir, "train")); err != nil {
		return nil, nil, nil, err
	}
	if train, err = listClassFolders(filepath.Join(dir, "train"), classes); err != nil {
		return nil, nil, nil, err
	}
	tested, err := subfolders(filepath.Join(dir, "test"))
	if err != nil {
		return nil, nil, nil, err
	}
	class := map[string]int{}
	for i, name := range classes {
		class[name] = i
	}
	for _, name := range tested {
		i, known := class[name]
		if !known {
			return nil, nil, nil, fmt.Errorf("datasets: test holds the class %s, which train does not", name)
		}
		pictures, err := picturesIn(filepath.Join(dir, "test", name), i)
		if err != nil {
			return nil, nil, nil, err
		}
		test = append(test, pictures...)
	}
	return train, test, classes, nil
}

// listClasses lists DIR/CLASS and divides each class.
func listClasses(dir string, classes []string) (train, test []picture, _ []string, err error) {
	pictures, err := listClassFolders(dir, classes)
	if err != nil {
		return nil, nil, nil, err
	}
	nth, class := 0, -1
	for _, p := range pictures {
		if p.class != class {
			nth, class = 0, p.class
		}
		if nth%heldOut == 1 {
			test = append(test, p)
		} else {
			train = append(train, p)
		}
		nth++
	}
	return train, test, classes, nil
}

// listClassFolders lists the pictures of all classes, none of which may be empty.
func listClassFolders(dir string, classes []string) ([]picture, error) {
	if len(classes) == 0 || len(classes) > math.MaxUint16+1 {
		return nil, fmt.Errorf("datasets: %d folders of classes in %s; 1 to %d are possible", len(classes), dir, math.MaxUint16+1)
	}
	var all []picture
	for class, name := range classes {
		pictures, err := picturesIn(filepath.Join(dir, name), class)
		if err != nil {
			return nil, err
		}
		if len(pictures) == 0 {
			return nil, fmt.Errorf("datasets: no .png, .jpg or .jpeg files in %s", filepath.Join(dir, name))
		}
		all = append(all, pictures...)
	}
	return all, nil
}

// subfolders returns the names of the folders in a folder, sorted.
func subfolders(dir string) ([]string, error) {
	var names []string
	err := entriesOf(dir, func(name string, info fs.FileInfo) error {
		if info.IsDir() {
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// picturesIn returns the pictures in a folder, sorted. A folder in it is refused: its pictures would be lost silently.
func picturesIn(dir string, class int) ([]picture, error) {
	var pictures []picture
	err := entriesOf(dir, func(name string, info fs.FileInfo) error {
		path := filepath.Join(dir, name)
		switch extension := strings.ToLower(filepath.Ext(name)); {
		case info.IsDir():
			return fmt.Errorf("datasets: %s is a folder within a class; pictures must lie in the class's own folder", path)
		case extension != ".png" && extension != ".jpg" && extension != ".jpeg":
		case !info.Mode().IsRegular():
			return formatErrorf(path, "not a regular file")
		default:
			pictures = append(pictures, picture{path, class})
		}
		return nil
	})
	return pictures, err
}

// entriesOf calls visit for what is in a folder, sorted by name, links followed, without names that begin with a point.
func entriesOf(dir string, visit func(string, fs.FileInfo) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("datasets: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("datasets: %w", err)
		}
		if err := visit(e.Name(), info); err != nil {
			return err
		}
	}
	return nil
}

// readPictures reads the pictures into d, whose sizes are set, and completes it.
func (d *Dataset) readPictures(pictures []picture) error {
	if d.Channels < 1 || d.Height < 1 || d.Width < 1 || d.Width > maxElements/d.Channels/d.Height/len(pictures) {
		return fmt.Errorf("datasets: %d images of %d×%d×%d; 1 to %d pixels are possible", len(pictures), d.Channels, d.Height, d.Width, maxElements)
	}
	d.mustNormalize("unit")
	d.Labels = make([]uint16, len(pictures))
	d.Pixels = make([]uint8, len(pictures)*d.imageSize())
	err := inParallel(len(pictures), func(i int) error {
		pixels, err := ReadImage(pictures[i].path, d.Channels, d.Height, d.Width)
		copy(d.Image(i), pixels)
		d.Labels[i] = uint16(pictures[i].class)
		return err
	})
	if err != nil {
		return err
	}
	return d.Validate()
}

// inParallel calls do for 0 to n−1 and returns the error of the lowest index that failed. Indices are given out in
// order and each that was given out is finished, so no lower one can have been left out.
func inParallel(n int, do func(int) error) error {
	var (
		next    atomic.Int64
		failed  atomic.Bool
		group   sync.WaitGroup
		errs    = make([]error, n)
		workers = min(runtime.GOMAXPROCS(0), n)
	)
	for range workers {
		group.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = do(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
