package datasets

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// The binary version of CIFAR: records of one or two label bytes and 3·32·32 pixels, red, green and blue planes of rows.
const (
	cifarChannels = 3
	cifarSide     = 32
	cifarImage    = cifarChannels * cifarSide * cifarSide
)

// cifar is one of the two data sets of that format. Its last member holds the test images, the others the training
// images in their order.
type cifar struct {
	name    string
	classes []string
	labels  []int // values of each label byte; the last byte is the class
	files   Files
}

var cifar10 = cifar{
	name:    "cifar10",
	classes: strings.Fields("airplane automobile bird cat deer dog frog horse ship truck"),
	labels:  []int{10},
	files: Files{
		Members: []Member{
			{Name: "data_batch_1.bin", Size: 30730000, MD5: "5dd7e06a14cb22eb9f671a540d1b7c25"},
			{Name: "data_batch_2.bin", Size: 30730000, MD5: "5ea93a67294ea407fff1d09f752e9692"},
			{Name: "data_batch_3.bin", Size: 30730000, MD5: "942cd6a4bcdd0dd3c604fbe906cb4421"},
			{Name: "data_batch_4.bin", Size: 30730000, MD5: "ae636b3ba5c66a11e91e8cb52e771fcb"},
			{Name: "data_batch_5.bin", Size: 30730000, MD5: "53f37980c15c3d472c316c40844f3f0d"},
			{Name: "test_batch.bin", Size: 30730000, MD5: "803d5f7f4d78ea53de84dbe85f74fb6d"},
		},
		Archive: "cifar-10-binary.tar.gz",
		Folder:  "cifar-10-batches-bin",
		Downloads: []Download{
			{URL: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", Size: 170052171},
		},
	},
}

// Checksums of CIFAR-100's members are not published; that of the archive is, on the data set's page.
var cifar100 = cifar{
	name: "cifar100",
	classes: strings.Fields(`apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
		bowl boy bridge bus butterfly camel can castle caterpillar cattle
		chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
		dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
		lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
		mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
		plain plate poppy porcupine possum rabbit raccoon ray road rocket
		rose sea seal shark shrew skunk skyscraper snail snake spider
		squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
		train trout tulip turtle wardrobe whale willow_tree wolf woman worm`),
	labels: []int{20, 100},
	files: Files{
		Members: []Member{
			{Name: "train.bin", Size: 153700000},
			{Name: "test.bin", Size: 30740000},
		},
		Archive: "cifar-100-binary.tar.gz",
		Folder:  "cifar-100-binary",
		Downloads: []Download{
			{URL: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", Size: 168513733, MD5: "03b5dce01913d631647c71ecec9e9cb8"},
		},
	},
}

const cifarSource = "Alex Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009; https://www.cs.toronto.edu/~kriz/cifar.html"

func init() {
	Register(Spec{
		Name:    cifar10.name,
		Doc:     "small photographs, 50,000 training and 10,000 test images, 3×32×32, 10 classes",
		Source:  cifarSource,
		License: "none stated; the authors ask to be cited",
		Load:    LoadCIFAR10,
		Files:   &cifar10.files,
	})
	Register(Spec{
		Name:    cifar100.name,
		Doc:     "small photographs, 50,000 training and 10,000 test images, 3×32×32, 100 classes",
		Source:  cifarSource,
		License: "none stated; the authors ask to be cited",
		Load:    LoadCIFAR100,
		Files:   &cifar100.files,
	})
}

// LoadCIFAR10 reads the binary version of CIFAR-10: 50,000 training and 10,000 test images of 3×32×32 pixels in 10
// classes, collected by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton. dir holds the files data_batch_1.bin to
// data_batch_5.bin and test_batch.bin, or the folder cifar-10-batches-bin with them, or cifar-10-binary.tar.gz; "" is
// looked up by Locate. The MD5 of each uncompressed file must be the original's. The normalization is "cifar", see
// Dataset.Normalized.
//
// What is wrong with the content of a file is a *FormatError.
func LoadCIFAR10(dir string) (Split, error) { return cifar10.open(dir) }

// LoadCIFAR100 reads the binary version of CIFAR-100 like LoadCIFAR10: train.bin and test.bin, or the folder
// cifar-100-binary with them, or cifar-100-binary.tar.gz. Classes are the 100 fine ones; the 20 coarse ones are not
// kept. There are no published checksums of the two files, so their sizes and labels alone are checked here; Fetch also
// compares the published MD5 of the archive.
func LoadCIFAR100(dir string) (Split, error) { return cifar100.open(dir) }

// open finds the folder and reads it.
func (c *cifar) open(dir string) (Split, error) {
	dir, err := Locate(c.name, dir)
	if err != nil {
		return Split{}, err
	}
	split, err := c.load(os.DirFS(dir))
	if err != nil {
		return Split{}, fmt.Errorf("%s: folder %s: %w", c.name, dir, err)
	}
	return split, nil
}

// record is the size of one image with its labels.
func (c *cifar) record() int64 { return int64(len(c.labels)) + cifarImage }

// images counts the images of some members.
func (c *cifar) images(members []Member) int {
	size := int64(0)
	for _, m := range members {
		size += m.Size
	}
	return int(size / c.record())
}

// load allocates what the data set is known to need, nothing that a file demands, and reads each member to its place.
func (c *cifar) load(folder fs.FS) (Split, error) {
	members := c.files.Members
	last := len(members) - 1
	split := Split{Train: c.empty(c.images(members[:last])), Test: c.empty(c.images(members[last:]))}
	err := c.files.each(folder, func(e entry) error {
		part := split.Test
		if e.index < last {
			from := c.images(members[:e.index])
			part = split.Train.Slice(from, from+c.images(members[e.index:e.index+1]))
		}
		_, err := e.read(func(r io.Reader) error { return c.readImages(part, r, e.file) })
		return err
	})
	if err != nil {
		return Split{}, err
	}
	return split, nil
}

// empty returns n images to be filled.
func (c *cifar) empty(n int) *Dataset {
	d := &Dataset{
		Name: c.name, Channels: cifarChannels, Height: cifarSide, Width: cifarSide, Classes: c.classes,
		Pixels: make([]uint8, n*cifarImage), Labels: make([]uint16, n),
	}
	d.mustNormalize("cifar")
	return d
}

// readImages fills a part with the records of a file.
func (c *cifar) readImages(part *Dataset, r io.Reader, name string) error {
	labels := make([]uint8, len(c.labels))
	for i := range part.Len() {
		if _, err := io.ReadFull(r, labels); err != nil {
			return err
		}
		for j, label := range labels {
			if int(label) >= c.labels[j] {
				return formatErrorf(name, "label %d of image %d; there are %d classes", label, i, c.labels[j])
			}
		}
		part.Labels[i] = uint16(labels[len(labels)-1])
		if _, err := io.ReadFull(r, part.Image(i)); err != nil {
			return err
		}
	}
	return nil
}
