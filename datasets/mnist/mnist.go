// Package mnist is the MNIST database of handwritten digits: 60,000 training and 10,000 test images of 28×28 gray
// pixels, white on black, in ten classes. The files are part of the package; importing it registers "mnist".
//
// The database was made by Yann LeCun, Corinna Cortes and Christopher J.C. Burges from NIST's Special Databases 1 and 3.
// It is under the licence Creative Commons Attribution-ShareAlike 3.0 (CC BY-SA 3.0), which the files keep here; they
// are unchanged.
package mnist

import (
	"embed"
	"fmt"
	"os"

	"github.com/goqat/goqat/datasets"
)

//go:embed data/*.gz
var embedded embed.FS

// files are the embedded ones. The checksums are of the uncompressed content, because compressed copies differ.
var files = datasets.IDXFiles{
	TrainImages: "data/train-images-idx3-ubyte.gz",
	TrainLabels: "data/train-labels-idx1-ubyte.gz",
	TestImages:  "data/t10k-images-idx3-ubyte.gz",
	TestLabels:  "data/t10k-labels-idx1-ubyte.gz",
	Checksums: map[string]string{
		"data/train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
		"data/train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
		"data/t10k-images-idx3-ubyte.gz":  "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
		"data/t10k-labels-idx1-ubyte.gz":  "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
	},
}

func init() {
	datasets.Register(datasets.Spec{
		Name:    "mnist",
		Doc:     "handwritten digits, 60,000 training and 10,000 test images, 1×28×28, 10 classes; part of the program",
		Source:  "Yann LeCun, Corinna Cortes, Christopher J.C. Burges: The MNIST database of handwritten digits",
		License: "CC BY-SA 3.0",
		Load:    Load,
	})
}

// Load returns the embedded database or, if dir is not "", the four files in MNIST's format in that folder, whatever
// their number and size of images. Pixels are scaled to [0, 1] and not shifted (Mean 0, Std 1), so that padding with
// zeros is padding with background.
func Load(dir string) (datasets.Split, error) {
	like := datasets.Dataset{
		Name:    "mnist",
		Classes: []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
		Mean:    []float32{0},
		Std:     []float32{1},
	}
	if dir == "" {
		return datasets.LoadIDX(embedded, files, like)
	}
	folder := os.DirFS(dir)
	found, err := datasets.FindIDX(folder)
	if err != nil {
		return datasets.Split{}, fmt.Errorf("mnist: folder %s: %w", dir, err)
	}
	split, err := datasets.LoadIDX(folder, found, like)
	if err != nil {
		return datasets.Split{}, fmt.Errorf("mnist: folder %s: %w", dir, err)
	}
	return split, nil
}
