package quantops_test

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/goqat/goqat/quantops"
)

// A weight tensor of two channels in a Gorgonia program of one's own, quantized to 3 bits with a learned step.
func ExampleFakeQuantize() {
	q, err := quantops.MustParse("lsq:3").Quantizer(quantops.Target{Role: quantops.Weights, Channels: 2, Size: 6, Signed: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	w := tensor.New(tensor.WithShape(2, 3), tensor.WithBacking([]float32{-1.4, 0.1, 0.3, 0.6, -0.2, 9}))
	step := tensor.New(tensor.WithShape(1, 1), tensor.WithBacking([]float32{0.5}))

	g := gorgonia.NewGraph()
	weights := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(2, 3), gorgonia.WithName("w"), gorgonia.WithValue(w))
	theta := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithShape(1, 1), gorgonia.WithName("step"), gorgonia.WithValue(step))
	y, err := quantops.FakeQuantize(q, weights, theta)
	if err != nil {
		fmt.Println(err)
		return
	}
	loss := gorgonia.Must(gorgonia.Sum(y))
	gradients, err := gorgonia.Grad(loss, weights, theta)
	if err != nil {
		fmt.Println(err)
		return
	}
	machine := gorgonia.NewTapeMachine(g)
	defer machine.Close()
	if err := machine.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("values:  ", y.Value().Data())
	fmt.Println("gradient:", gradients[0].Value().Data())
	fmt.Printf("of step:  %.3f\n", gradients[1].Value().Data())
	// Output:
	// values:   [-1.5 0 0.5 0.5 0 1.5]
	// gradient: [1 1 1 1 1 0]
	// of step:  [0.754]
}

func ExampleParse() {
	m, err := quantops.Parse("linear:4,asymmetric=true")
	fmt.Println(m, err)
	_, err = quantops.Parse("lsq:1")
	fmt.Println(err)
	// Output:
	// linear:4,asymmetric <nil>
	// quantops: method "lsq:1": lsq has 2 to 8 bits
}
