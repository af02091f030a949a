package integer_test

import (
	"fmt"
	"log"
	"os"

	"github.com/goqat/goqat/integer"
)

// A service that classifies: bytes of a model once, then images as they come.
func Example() {
	data, err := os.ReadFile("testdata/small.goq")
	if err != nil {
		log.Fatal(err)
	}
	model, err := integer.Decode(data)
	if err != nil {
		log.Fatal(err)
	}
	images := make([]uint8, 2*model.Input.Len()) // raw pixels: a black image and a white one
	for i := len(images) / 2; i < len(images); i++ {
		images[i] = 255
	}
	logits, err := model.Program.Run(images)
	if err != nil {
		log.Fatal(err)
	}
	for i, class := range integer.Argmax(logits, len(model.Classes)) {
		score := float64(logits[i*len(model.Classes)+class]) * model.LogitScale
		fmt.Printf("image %d: class %s, score %.3f\n", i, model.Classes[class], score)
	}
	// Output:
	// image 0: class c, score 5.577
	// image 1: class a, score 3.501
}

// A network is built from weights with integer codes and grids for its activations.
func ExampleBuilder() {
	pixels := make([][256]float32, 1)
	for p := range pixels[0] {
		pixels[0][p] = float32(p) / 255
	}
	b := integer.NewBuilder(integer.Input{Channels: 1, Height: 1, Width: 2, Pixel: pixels})
	x, err := b.Quantize(b.Input(), integer.Grid{Bits: 8, Scale: 1. / 255, Max: 255})
	if err != nil {
		log.Fatal(err)
	}
	if x, err = b.Flatten(x); err != nil {
		log.Fatal(err)
	}
	x, err = b.Linear("fc", x, &integer.Weights{
		Shape: []int{2, 2}, Bits: 2, Codes: []uint16{1, 3, 3, 1}, // left brighter, right brighter
		Planes: []integer.Plane{{Table: integer.SignedTable(2), Scale: []float64{0.5, 0.5}}},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	model, err := b.Output(x, []string{"left", "right"})
	if err != nil {
		log.Fatal(err)
	}
	logits, err := model.Program.Run([]uint8{200, 100})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(model.Classes[integer.Argmax(logits, 2)[0]])
	// Output: left
}

// A machine without multiplier adds shifted activations: here for weights of additive powers of two, in tenths.
func ExampleShiftAdd() {
	table := []int8{0, 1, 2, 3, 4, 6, 8, 10, 0, -1, -2, -3, -4, -6, -8, -10}
	shifts := integer.ShiftAdd(table)
	fmt.Println("6 =", shifts[5])

	codes, x := []uint16{7, 11, 5}, []int32{200, 31, 5}
	sum := int32(0)
	for i, code := range codes {
		for _, term := range shifts[code] {
			sum += term.Of(x[i])
		}
	}
	fmt.Println(sum, 10*200-3*31+6*5)
	// Output:
	// 6 = [{1 true} {3 false}]
	// 1937 1937
}
