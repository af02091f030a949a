package datasets

import (
	"fmt"
	"os"
)

// The authors' own host serves the files without TLS alone; their repository has the same ones.
const fashionURL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"

var fashionFiles = Files{
	Members: []Member{
		{Name: "train-images-idx3-ubyte", Size: 47040016, SHA256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"},
		{Name: "train-labels-idx1-ubyte", Size: 60008, SHA256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"},
		{Name: "t10k-images-idx3-ubyte", Size: 7840016, SHA256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"},
		{Name: "t10k-labels-idx1-ubyte", Size: 10008, SHA256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
	},
	Downloads: []Download{
		{URL: fashionURL + "train-images-idx3-ubyte.gz", Size: 26421880},
		{URL: fashionURL + "train-labels-idx1-ubyte.gz", Size: 29515},
		{URL: fashionURL + "t10k-images-idx3-ubyte.gz", Size: 4422102},
		{URL: fashionURL + "t10k-labels-idx1-ubyte.gz", Size: 5148},
	},
	// Debian's package dataset-fashion-mnist.
	Installed: []string{"/usr/share/datasets/fashion-mnist"},
}

func init() {
	Register(Spec{
		Name:    "fashion-mnist",
		Doc:     "articles of clothing, 60,000 training and 10,000 test images, 1×28×28, 10 classes",
		Source:  "Han Xiao, Kashif Rasul, Roland Vollgraf: Fashion-MNIST, arXiv:1708.07747; https://github.com/zalandoresearch/fashion-mnist",
		License: "MIT",
		Load:    LoadFashionMNIST,
		Files:   &fashionFiles,
	})
}

// LoadFashionMNIST reads Fashion-MNIST: 60,000 training and 10,000 test images of 28×28 gray pixels, light on black, in
// 10 classes of clothing, by Han Xiao, Kashif Rasul and Roland Vollgraf (Zalando SE, MIT License). dir holds the four
// files in MNIST's format, plain or .gz; "" is looked up by Locate. The SHA-256 of each uncompressed file must be the
// original's. Pixels are scaled to [0, 1] and not shifted, so that padding with zeros is padding with background.
//
// What is wrong with the content of a file is a *FormatError.
func LoadFashionMNIST(dir string) (Split, error) {
	const name = "fashion-mnist"
	dir, err := Locate(name, dir)
	if err != nil {
		return Split{}, err
	}
	folder := os.DirFS(dir)
	files, err := FindIDX(folder)
	if err == nil {
		files.Checksums = map[string]string{}
		for i, file := range []string{files.TrainImages, files.TrainLabels, files.TestImages, files.TestLabels} {
			files.Checksums[file] = fashionFiles.Members[i].SHA256
		}
		var split Split
		split, err = LoadIDX(folder, files, Dataset{
			Name: name,
			Classes: []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
				"Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"},
			Mean: []float32{0},
			Std:  []float32{1},
		})
		if err == nil {
			return split, nil
		}
	}
	return Split{}, fmt.Errorf("%s: folder %s: %w", name, dir, err)
}
