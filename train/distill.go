package train

import (
	"fmt"

	"github.com/goqat/goqat/internal/kernel"
	"github.com/goqat/goqat/layers"
)

// Distillation makes a network learn from a teacher's outputs besides the labels:
//
//	loss = (1-Weight)·cross-entropy + Weight·T²·KL(softmax(teacher/T) ‖ softmax(student/T)),  T = Temperature
//
// the mean over the images of a step, label smoothing being part of the cross-entropy.
//
// Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
type Distillation struct {
	Teacher     *layers.Network // sees every step's images, augmented, in evaluation mode, and stays as it is
	Temperature float64         // up to 1000; 0 means 4
	Weight      float64         // up to 1; 0 means 0.5
}

// maxTemperature is where softened outputs of any network are equal but for rounding.
const maxTemperature = 1000

func (d *Distillation) temperature() float64 { return orDefault(d.Temperature, 4) }
func (d *Distillation) weight() float64      { return orDefault(d.Weight, 0.5) }

// check refuses what a student can't learn from.
func (d *Distillation) check(student *layers.Network) error {
	switch teacher := d.Teacher; {
	case teacher == nil:
		return fmt.Errorf("train: distillation without a teacher")
	case !(d.Temperature >= 0 && d.Temperature <= maxTemperature):
		return fmt.Errorf("train: temperature %v: want more than 0 and at most %d", d.Temperature, maxTemperature)
	case !(d.Weight >= 0 && d.Weight <= 1):
		return fmt.Errorf("train: weight %v of distillation: want more than 0 and at most 1", d.Weight)
	default:
		return sameTask(teacher, student)
	}
}

// sameTask refuses a teacher that takes other images than the student or tells other classes apart.
func sameTask(teacher, student *layers.Network) error {
	in, want := teacher.Input, student.Input
	if in.Channels != want.Channels || in.Height != want.Height || in.Width != want.Width {
		return fmt.Errorf("train: the teacher takes images of %v, the network of %v", in, want)
	}
	if teacher.Output.Len() != student.Output.Len() {
		return fmt.Errorf("train: the teacher tells %d classes apart, the network %d", teacher.Output.Len(), student.Output.Len())
	}
	return nil
}

// teacher computes what a network learns from besides labels.
type teacher struct {
	evaluator *Evaluator
	loss      kernel.Distillation // its cross-entropy is the trainer's
	logits    []float32           // of the batch, [blocks][classes][16] real numbers
}

func newTeacher(d *Distillation, batch int) (*teacher, error) {
	evaluator, err := NewEvaluator(d.Teacher, batch)
	if err != nil {
		return nil, err
	}
	if err := evaluator.pass.Refresh(); err != nil {
		return nil, err
	}
	return &teacher{
		evaluator: evaluator, logits: make([]float32, len(evaluator.logits)),
		loss: kernel.Distillation{Temperature: d.temperature(), Weight: d.weight()},
	}, nil
}

// look computes the logits of a batch of images.
func (t *teacher) look(images []float32) error {
	copy(t.evaluator.images, images)
	if err := t.evaluator.compute(); err != nil {
		return fmt.Errorf("teacher: %w", err)
	}
	t.evaluator.real(t.logits)
	if !kernel.Finite(t.logits) {
		return fmt.Errorf("the teacher's outputs are not finite, first in %s", culprit(t.evaluator.pass))
	}
	return nil
}
