package train_test

import (
	"context"
	"fmt"
	"log"

	"github.com/goqat/goqat/datasets/mnist"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
)

// A network is built, trained with 4-bit weights and activations, exported, and run on integers alone.
func Example() {
	digits, err := mnist.Load("")
	check(err)
	network, err := models.New("lenet5", models.Options{
		Input:    layers.Shape{Channels: 1, Height: 28, Width: 28},
		Classes:  10,
		Methods:  layers.Methods{Weights: quantops.MustParse("lsq:4"), Activations: quantops.MustParse("lsq:4")},
		EdgeBits: 8,
	})
	check(err)
	images := digits.Train.Head(1600)
	check(train.Calibrate(network, images, 256))
	trainer := train.Trainer{Network: network, Data: images, Epochs: 2, LearningRate: 0.04}
	check(trainer.Run(context.Background()))

	model, err := train.Export(network, images, nil)
	check(err)
	file, err := integer.Encode(model) // what integer.Save writes
	check(err)

	// A service needs package integer alone from here on.
	model, err = integer.Decode(file)
	check(err)
	logits, err := model.Program.Run(digits.Test.Image(0))
	check(err)
	fmt.Println("the first test image is a", model.Classes[integer.Argmax(logits, 10)[0]])

	score, err := train.EvaluateModel(model, digits.Test)
	check(err)
	fmt.Printf("integer accuracy %.4f\n", score.Accuracy)
	// Output:
	// the first test image is a 7
	// integer accuracy 0.8527
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
