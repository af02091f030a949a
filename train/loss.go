package train

import (
	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/quantops"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// crossEntropy is the softmax cross-entropy of a batch, with label smoothing, as a Function of the logits; where there
// is a teacher, the loss of distillation that it is part of.
type crossEntropy struct {
	loss     kernel.CrossEntropy
	labels   []int32  // of the batch; -1 in lanes without an image
	teacher  *teacher // nil for none
	gradient []float32
}

var _ quantops.Differentiable = (*crossEntropy)(nil)

// apply adds the loss of logits [blocks][classes][1][1][16] to their graph, a scalar.
func (f *crossEntropy) apply(logits *gorgonia.Node) (*gorgonia.Node, error) {
	f.gradient = make([]float32, logits.Shape().TotalSize())
	return quantops.Apply(f, tensor.ScalarShape(), quantops.Input{Node: logits})
}

func (f *crossEntropy) String() string { return "cross entropy" }

func (f *crossEntropy) Forward(y []float32, x [][]float32) error {
	if f.teacher == nil {
		y[0] = float32(f.loss.Loss(f.gradient, x[0], f.labels))
		return nil
	}
	distillation := f.teacher.loss
	distillation.CrossEntropy = f.loss
	y[0] = float32(distillation.Loss(f.gradient, x[0], f.teacher.logits, f.labels))
	return nil
}

func (f *crossEntropy) Backward(dx [][]float32, dy, _ []float32, _ [][]float32) error {
	for i, g := range f.gradient {
		dx[0][i] = g * dy[0]
	}
	return nil
}
