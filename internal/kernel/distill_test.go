package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/golden"
)

// spoil fills the lanes of logits that have no label; these must not matter.
func spoil(logits []float32, labels []int32, classes int) {
	for i := range logits {
		if labels[i/Lanes/classes*Lanes+i%Lanes] < 0 {
			logits[i] = 1e30
		}
	}
}

// The reference is the divergence alone, without T², mean over images.
func TestDistillationGolden(t *testing.T) {
	golden.Run(t, "layers", "kl_distill", func(t *testing.T, c golden.Case) {
		images, classes, temperature := c.Shape("student")[0], c.Shape("student")[1], c.Number("T")
		student, teacher := packed(c, "student"), packed(c, "teacher")
		labels := make([]int32, Blocks(images)*Lanes)
		for i := images; i < len(labels); i++ {
			labels[i] = -1
		}
		spoil(student, labels, classes)
		spoil(teacher, labels, classes)
		gradient := make([]float32, len(student))
		loss := Distillation{CrossEntropy{Classes: classes}, temperature, 1}.Loss(gradient, student, teacher, labels)
		require.InEpsilon(t, c.Float64("loss")[0], loss/(temperature*temperature), 1e-6)
		got := make([]float32, images*classes)
		Unpack(got, gradient, images, classes)
		for i, want := range c.Float32("dstudent") {
			require.InDelta(t, want, float64(got[i])/(temperature*temperature), 1e-6)
		}
		for i, g := range gradient {
			if labels[i/Lanes/classes*Lanes+i%Lanes] < 0 {
				require.Zero(t, g)
			}
		}
	})
}

// distillationDefinition is L of one image, from its definition.
func distillationDefinition(d Distillation, student, teacher []float64, label int) float64 {
	logSoftmax := func(x []float64, temperature float64) []float64 {
		sum, out := 0.0, make([]float64, len(x))
		for _, v := range x {
			sum += math.Exp(v / temperature)
		}
		for k, v := range x {
			out[k] = v/temperature - math.Log(sum)
		}
		return out
	}
	p, q, plain := logSoftmax(teacher, d.Temperature), logSoftmax(student, d.Temperature), logSoftmax(student, 1)
	hard, soft := 0.0, 0.0
	for k := range student {
		hard -= d.target(k, label) * plain[k]
		soft += math.Exp(p[k]) * (p[k] - q[k])
	}
	return (1-d.Weight)*hard + d.Weight*d.Temperature*d.Temperature*soft
}

// Loss and gradient are those of the definition, the gradient by central differences.
func TestDistillationGradient(t *testing.T) {
	const images, classes = 19, 5
	logits := func(frequency float64) (flat []float64, blocks []float32) {
		plain := make([]float32, images*classes)
		for i := range plain {
			plain[i] = float32(3 * Sin(frequency*float64(i)))
			flat = append(flat, float64(plain[i]))
		}
		blocks = make([]float32, Blocks(images)*classes*Lanes)
		Pack(blocks, plain, images, classes)
		return flat, blocks
	}
	student, packedStudent := logits(2.3)
	teacher, packedTeacher := logits(1.7)
	labels := make([]int32, Blocks(images)*Lanes)
	for i := range labels {
		labels[i] = int32(i % classes)
		if i >= images {
			labels[i] = -1
		}
	}
	for _, d := range []Distillation{
		{CrossEntropy{Classes: classes}, 1, 1}, {CrossEntropy{Classes: classes}, 4, 1}, {CrossEntropy{classes, 0.1}, 0.5, 0.3},
		{CrossEntropy{classes, 0.2}, 20, 0.9}, {CrossEntropy{Classes: classes}, 3, 0},
	} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			of := func(image int) float64 {
				from, to := image*classes, (image+1)*classes
				return distillationDefinition(d, student[from:to], teacher[from:to], int(labels[image])) / images
			}
			want := 0.0
			for image := range images {
				want += of(image)
			}
			gradient := make([]float32, len(packedStudent))
			require.InEpsilon(t, want, d.Loss(gradient, packedStudent, packedTeacher, labels), 1e-12)
			got := make([]float32, images*classes)
			Unpack(got, gradient, images, classes)
			const step = 1e-5
			for i := range student {
				at := student[i]
				student[i] = at + step
				up := of(i / classes)
				student[i] = at - step
				down := of(i / classes)
				student[i] = at
				require.InDelta(t, (up-down)/(2*step), got[i], 1e-7, "element %d", i)
			}
		})
	}
}

// A weight of 0 is cross-entropy bit for bit, and a student that is its teacher has nothing to learn from it.
func TestDistillationLimits(t *testing.T) {
	labels, logits := make([]int32, Lanes), make([]float32, 3*Lanes)
	for i := range logits {
		logits[i] = float32(i%7) - 2.5
	}
	plain, gradient := make([]float32, len(logits)), make([]float32, len(logits))
	want := CrossEntropy{Classes: 3}.Loss(plain, logits, labels)
	require.Equal(t, want, Distillation{CrossEntropy{Classes: 3}, 4, 0}.Loss(gradient, logits, make([]float32, len(logits)), labels))
	require.Equal(t, plain, gradient)
	require.Zero(t, Distillation{CrossEntropy{Classes: 3}, 4, 1}.Loss(gradient, logits, logits, labels))
	require.Equal(t, make([]float32, len(logits)), gradient)
	require.Zero(t, Distillation{CrossEntropy{Classes: 3}, 4, 1}.Loss(gradient[:0], nil, nil, nil), "no images")
}

// Logits far apart neither overflow nor make a NaN of 0·∞.
func TestDistillationOfLargeLogits(t *testing.T) {
	student, teacher, labels := make([]float32, 2*Lanes), make([]float32, 2*Lanes), make([]int32, Lanes)
	for i := range Lanes {
		student[i], teacher[Lanes+i] = 1e5, 1e5
	}
	gradient := make([]float32, len(student))
	require.Equal(t, 1e5*2*2/2.0, Distillation{CrossEntropy{Classes: 2}, 2, 1}.Loss(gradient, student, teacher, labels))
	require.Equal(t, []float32{2.0 / Lanes, -2.0 / Lanes}, []float32{gradient[0], gradient[Lanes]})
}
