package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
	"github.com/spf13/cobra"
)

// prediction is what `goqat predict` tells of an image.
type prediction struct {
	Image string  `json:"image"`
	Class string  `json:"class"`
	Score float64 `json:"score"` // softmax of the logits
}

func newPredict() *cobra.Command {
	var asJSON, invert bool
	var limit int
	c := &cobra.Command{
		Use:   "predict RUN|MODEL.goq IMAGE…",
		Short: "Classify PNG or JPEG pictures, or the images of idx files, with integer arithmetic",
		Long: `Classify pictures with an integer model. PNG and JPEG pictures are scaled to the model's size; idx files (plain or
gzip) hold many images of that size. MNIST digits are white on black: --invert takes black on white.`,
		Args: arguments(2, -1, "a model and at least one image"),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("predict: limit of %d images: want 0 or more", limit)
			}
			model, err := openModel(args[0])
			if err != nil {
				return err
			}
			if model.Program == nil {
				return fmt.Errorf("predict: %s has float activations and no integer program", args[0])
			}
			for _, path := range args[1:] {
				found, err := predict(model, path, limit, invert)
				if err != nil {
					return err
				}
				if err := printPredictions(c.OutOrStdout(), found, asJSON); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	c.Flags().BoolVar(&invert, "invert", false, "turn black into white first")
	c.Flags().IntVar(&limit, "limit", 0, "stop after so many images of an idx file; 0 for all")
	return c
}

// predict classifies the images of a file.
func predict(model *integer.Model, path string, limit int, invert bool) ([]prediction, error) {
	pixels, names, err := readImages(model.Input, path)
	if err != nil {
		return nil, err
	}
	if limit > 0 && limit < len(names) {
		names, pixels = names[:limit], pixels[:limit*model.Input.Len()]
	}
	if invert {
		for i := range pixels {
			pixels[i] = 255 - pixels[i]
		}
	}
	logits, err := model.Program.Run(pixels)
	if err != nil {
		return nil, err
	}
	classes := len(model.Classes)
	found := make([]prediction, len(names))
	for i, class := range integer.Argmax(logits, classes) {
		found[i] = prediction{names[i], model.Classes[class], score(logits[i*classes:][:classes], class, model.LogitScale)}
	}
	return found, nil
}

// score is the softmax of one image's logits at a class.
func score(logits []int32, class int, unit float64) float64 {
	sum := 0.0
	for _, l := range logits {
		sum += kernel.Exp(float64(l-logits[class]) * unit)
	}
	return 1 / sum
}

// readImages reads an idx file or a picture as pixels of the model's size.
func readImages(in integer.Shape, path string) (pixels []uint8, names []string, err error) {
	pixels, count, err := readIDX(in, path)
	if errors.Is(err, errNotIDX) {
		pixels, err = datasets.ReadImage(path, in.Channels, in.Height, in.Width)
		return pixels, []string{path}, err
	}
	for i := range count {
		names = append(names, path+"#"+strconv.Itoa(i))
	}
	return pixels, names, err
}

var errNotIDX = errors.New("not an idx file")

// readIDX reads an idx file of images, or returns errNotIDX for a file that begins in another way.
func readIDX(in integer.Shape, path string) (pixels []uint8, count int, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("predict: %s is not a file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer file.Close()
	start := make([]byte, 2)
	if n, err := io.ReadFull(file, start); n < 2 || err != nil || !(start[0] == 0 && start[1] == 0 || start[0] == 0x1f && start[1] == 0x8b) {
		return nil, 0, errNotIDX
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	count, height, width, pixels, err := datasets.ReadIDXImages(file, path)
	if err != nil {
		return nil, 0, err
	}
	if in.Channels != 1 || height != in.Height || width != in.Width {
		return nil, 0, fmt.Errorf("predict: %s holds images of 1x%dx%d; the model takes %v", path, height, width, in)
	}
	return pixels, count, nil
}

func printPredictions(w io.Writer, found []prediction, asJSON bool) error {
	lines := json.NewEncoder(w)
	for _, p := range found {
		var err error
		if asJSON {
			err = lines.Encode(p)
		} else {
			_, err = fmt.Fprintf(w, "%s\t%s\t%.4f\n", p.Image, p.Class, p.Score)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
