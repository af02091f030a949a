package train

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
)

// filepathOf makes a file in a new folder and returns its path.
func filepathOf(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

// stopped runs an experiment and interrupts it at a step.
func stopped(t *testing.T, r *rig, phase Phase, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.atStep(phase, step, cancel)
	_, err := r.Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
}

// stoppedCalibrating runs an experiment up to the start of its quantized phase.
func stoppedCalibrating(t *testing.T, r *rig) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.Report = func(e Event) {
		if strings.HasPrefix(e.Text, "calibrating") {
			cancel()
		}
	}
	_, err := r.Run(ctx)
	require.ErrorIs(t, err, ErrInterrupted)
}

// byName maps the names of parameters to them.
func byName(params []Tensor) map[string]Tensor {
	all := map[string]Tensor{}
	for _, p := range params {
		all[p.Name] = p
	}
	return all
}

// logitsOf returns the logits of a network in evaluation mode, [image][10].
func logitsOf(t *testing.T, network *layers.Network, d *datasets.Dataset) []float32 {
	t.Helper()
	evaluator, err := NewEvaluator(network, d.Len())
	require.NoError(t, err)
	defer evaluator.Close()
	logits, err := evaluator.Logits(d, upTo(d.Len()))
	require.NoError(t, err)
	return logits
}

// softDivergence is KL(softmax(teacher/T) ‖ softmax(student/T)) of one image.
func softDivergence(teacher, student []float32, temperature float64) float64 {
	sumTeacher, sumStudent, divergence := 0.0, 0.0, 0.0
	for k := range teacher {
		sumTeacher += math.Exp(float64(teacher[k]) / temperature)
		sumStudent += math.Exp(float64(student[k]) / temperature)
	}
	for k := range teacher {
		p, q := math.Exp(float64(teacher[k])/temperature)/sumTeacher, math.Exp(float64(student[k])/temperature)/sumStudent
		divergence += p * math.Log(p/q)
	}
	return divergence
}

// The first loss of a training is the definition's on its first batch, here of all images, for a float teacher and for a
// quantized one, neither of which changes.
func TestDistillationIsTheDefinition(t *testing.T) {
	d := digits(t, 20, 1).Train
	for _, m := range []string{"none", "lsq:4"} {
		teacher, err := normalizedNetwork(methods(m, m), 0, 3)
		require.NoError(t, err)
		require.NoError(t, Calibrate(teacher, d, 20))
		before := WeightsHash(teacher)
		for _, c := range []Distillation{{}, {Temperature: 1, Weight: 1}, {Temperature: 7, Weight: 0.2}} {
			student, err := smallNetwork(layers.Methods{}, 0, 1)
			require.NoError(t, err)
			soft, logits := logitsOf(t, teacher, d), logitsOf(t, student, d)
			temperature, weight := c.Temperature, c.Weight
			if temperature == 0 {
				temperature, weight = 4, 0.5
			}
			want := 0.0
			for i := range 20 {
				hard := smoothedLoss(logits[i*10:][:10], int(d.Labels[i]), 0.1)
				want += (1-weight)*hard/20 + weight*temperature*temperature*softDivergence(soft[i*10:][:10], logits[i*10:][:10], temperature)/20
			}
			c.Teacher = teacher
			var losses []float64
			trainer := Trainer{Network: student, Data: d, Epochs: 30, Batch: 20, LearningRate: 0.02, Schedule: Constant{}, Smoothing: 0.1, Distillation: &c,
				AfterStep: func(s Step) error { losses = append(losses, s.Loss); return nil }}
			require.NoError(t, trainer.Run(t.Context()))
			require.NoError(t, trainer.Close())
			require.InEpsilon(t, want, losses[0], 2e-6, "%s, %v", m, c)
			require.Less(t, losses[29], losses[0], "%s, %v", m, c)
			require.Equal(t, before, WeightsHash(teacher))
		}
	}
}

// The gradients that reach the parameters are those of the loss.
func TestDistillationGradientsOfParameters(t *testing.T) {
	d := digits(t, 20, 1).Train
	teacher, err := normalizedNetwork(layers.Methods{}, 0, 3)
	require.NoError(t, err)
	student, err := smallNetwork(layers.Methods{}, 0, 1)
	require.NoError(t, err)
	trainer := Trainer{Network: student, Data: d, Epochs: 1, Batch: 20, Distillation: &Distillation{Teacher: teacher, Temperature: 2, Weight: 0.8}}
	require.NoError(t, trainer.build())
	defer trainer.Close()
	g := trainer.graph
	d.Fill(g.images, g.loss.labels, upTo(20))
	require.NoError(t, trainer.teacher.look(g.images))
	loss := func() float64 {
		require.NoError(t, g.machine.RunAll())
		g.machine.Reset()
		return float64(g.value[0])
	}
	loss()
	for _, p := range g.parameters {
		if p.Name != "fc2.bias" { // smooth in the loss, unlike what lies before ReLU and pooling
			continue
		}
		gradient := append([]float32(nil), p.Gradient...)
		require.Len(t, gradient, 10)
		for i, v := range p.Value {
			const step = 0.02
			p.Value[i] = v + step
			up := loss()
			p.Value[i] = v - step
			down := loss()
			p.Value[i] = v
			require.InDelta(t, (up-down)/(2*step), gradient[i], 5e-5, "element %d", i)
		}
		return
	}
	require.Fail(t, "no fc2.bias")
}

func TestDistillationRefuses(t *testing.T) {
	d, student := counted(t, 12)
	network := func(in layers.Shape, outputs int) *layers.Network {
		n, err := layers.NewNetwork(layers.Sequential{layers.Flatten{}, &layers.Linear{Name: "fc", Outputs: outputs}}, in, 1)
		require.NoError(t, err)
		return n
	}
	in := layers.Shape{Channels: 1, Height: 2, Width: 2}
	good, infinite := network(in, 3), network(in, 3)
	poison(t, infinite, "fc.bias", float32(math.Inf(1)))
	for want, c := range map[string]Distillation{
		"train: distillation without a teacher":                                  {},
		"train: the teacher takes images of 1x2x3, the network of 1x2x2":         {Teacher: network(layers.Shape{Channels: 1, Height: 2, Width: 3}, 3)},
		"train: the teacher tells 4 classes apart, the network 3":                {Teacher: network(in, 4)},
		"train: temperature -1: want more than 0 and at most 1000":               {Teacher: good, Temperature: -1},
		"train: temperature NaN: want more than 0 and at most 1000":              {Teacher: good, Temperature: math.NaN()},
		"train: weight 1.5 of distillation: want more than 0 and at most 1":      {Teacher: good, Weight: 1.5},
		"train: weight NaN of distillation: want more than 0 and at most 1":      {Teacher: good, Weight: math.NaN()},
		"train: epoch 1, step 1: the teacher's outputs are not finite, first in": {Teacher: infinite},
	} {
		trainer := Trainer{Network: student, Data: d, Epochs: 1, Batch: 4, Distillation: &c}
		require.ErrorContains(t, trainer.Run(t.Context()), want)
		require.NoError(t, trainer.Close())
	}
}

// A run learns from a finished one, float or quantized, from its folder or its file; its configuration tells which.
func TestTeacherOfARun(t *testing.T) {
	run, before := finishedRun(t)
	var hashes []string
	for _, path := range []string{run, filepath.Join(run, CheckpointFile)} {
		folder := t.TempDir()
		r := newRig(t, folder, taught(path))
		r.Config.Float.Epochs, r.Config.Quantized.Epochs = 1, 1
		result := r.complete(t)
		require.Len(t, r.Config.TeacherHash, 64)
		require.Contains(t, string(read(t, folder, ConfigFile)), "teacher_hash: "+r.Config.TeacherHash+"\n")
		require.Equal(t, before.WeightsSHA256, WeightsHash(r.distillation.Teacher), "the quantized network of the run")
		hashes = append(hashes, result.WeightsSHA256)
	}
	require.Equal(t, hashes[0], hashes[1])
	r := newRig(t, t.TempDir(), func(c *Config) {
		taught("")(c)
		c.Teacher, c.Float.Epochs, c.Quantized.Epochs = "", 1, 1
	})
	require.NotEqual(t, hashes[0], r.complete(t).WeightsSHA256, "what it is without a teacher")
}

// A teacher of another kind of file is a float network, the run's own unless it is named.
func TestImportedTeacher(t *testing.T) {
	file := filepathOf(t, "weights.bin", "these")
	for name, want := range map[string]string{"": "small", "normalized": "normalized", "other": `no model "other"`} {
		r := newRig(t, t.TempDir(), func(c *Config) {
			c.Teacher, c.TeacherModel, c.Float.Epochs, c.Quantized.Epochs = file, name, 1, 1
		})
		var built Config
		r.BuildTeacher = func(c Config, m layers.Methods) (*layers.Network, error) {
			require.Equal(t, layers.Methods{}, m)
			built = c
			return buildNetwork(c, m)
		}
		imported := 0
		r.Import = func(path string, network *layers.Network) error {
			require.Equal(t, file, path)
			imported++
			return nil
		}
		_, err := r.Run(t.Context())
		if name == "other" {
			require.EqualError(t, err, want)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, built.Model)
		require.Equal(t, 1, imported)
	}
}

func TestTeacherIsCheckedFirst(t *testing.T) {
	run := copied(t)
	before := files(t, run)
	file := filepath.Join(run, CheckpointFile)
	c, err := LoadCheckpoint(file)
	require.NoError(t, err)
	damaged := *c
	damaged.Params = c.Params[1:]
	narrow := filepathOf(t, "narrow", "")
	require.NoError(t, damaged.Save(narrow))
	garbage := filepathOf(t, "garbage", "garbage")
	for want, change := range map[string]func(*rig){
		"train: the run would overwrite " + file + ", which it learns from":                           func(r *rig) { r.Folder, r.Config.Teacher = run, run },
		"train: " + file + " is not the file that the run was started to learn from: its SHA-256 is ": func(r *rig) { r.Config.Teacher, r.Config.TeacherHash = run, "00" },
		"train: a teacher needs Experiment.BuildTeacher":                                              func(r *rig) { r.Config.Teacher, r.BuildTeacher = run, nil },
		`train: checkpoint: it has no parameter "conv1.bias" (` + narrow + ")":                        func(r *rig) { r.Config.Teacher = narrow },
		"train: checkpoint: it is not a whole safetensors file: ":                                     func(r *rig) { r.Config.Teacher = garbage },
		"train: the teacher " + file + " is a small, not a normalized":                                func(r *rig) { r.Config.Teacher, r.Config.TeacherModel = run, "normalized" },
		"train: the teacher " + file + " knows images of mnist, the run has mnist normalized as unit": func(r *rig) { r.Config.Teacher, r.Config.Normalize = run, "unit" },
		"train: the teacher " + file + " knows images of mnist, the run has other":                    func(r *rig) { r.Config.Teacher, r.Config.Data = run, "other" },
		"train: the teacher tells 10 classes apart, the network 11 (" + file + ")": func(r *rig) {
			r.Config.Teacher = run
			r.Build = func(layers.Methods) (*layers.Network, error) {
				return layers.NewNetwork(layers.Sequential{layers.Flatten{}, &layers.Linear{Outputs: 11}}, layers.Shape{Channels: 1, Height: 28, Width: 28}, 1)
			}
		},
	} {
		folder := t.TempDir()
		r := newRig(t, folder, nil)
		r.Force = true
		change(r)
		_, err := r.Run(t.Context())
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
		require.Empty(t, files(t, folder))
		require.Equal(t, before, files(t, run))
	}
}

// A teacher that is another one by the time of the resumption is refused.
func TestTeacherStaysTheSame(t *testing.T) {
	teacher, folder := copied(t), t.TempDir()
	r := newRig(t, folder, taught(teacher))
	stopped(t, r, FloatPhase, 3)
	c, err := LoadCheckpoint(filepath.Join(teacher, CheckpointFile))
	require.NoError(t, err)
	c.Seconds++
	require.NoError(t, c.Save(filepath.Join(teacher, CheckpointFile)))
	r = newRig(t, folder, taught(teacher))
	r.Resume = true
	_, err = r.Run(t.Context())
	require.ErrorContains(t, err, `was started with another configuration: "teacher_hash: `)
	r.Config, err = ReadConfig(folder)
	require.NoError(t, err)
	_, err = r.Run(t.Context())
	require.ErrorContains(t, err, "is not the file that the run was started to learn from: its SHA-256 is ")
}

// A network of fewer bits starts from a run of more: weights and statistics are the run's, scales are fitted anew.
func TestProgressiveFineTuning(t *testing.T) {
	from := t.TempDir()
	newRig(t, from, func(c *Config) { c.Model, c.EdgeBits = "normalized", 0 }).complete(t)
	before, err := LoadCheckpoint(filepath.Join(from, CheckpointFile))
	require.NoError(t, err)
	for weights, acts := range map[string]string{"lsq:2": "lsq:2", "linear:3,asymmetric": "lsq:3", "lsq:2,per=channel": "lsq:4,inside=rounded"} {
		folder := t.TempDir()
		r := newRig(t, folder, func(c *Config) {
			c.Model, c.EdgeBits, c.Init, c.Float.Epochs, c.Seed = "normalized", 0, from, 0, 9
			c.Weights, c.Acts = quantops.MustParse(weights), quantops.MustParse(acts)
		})
		stoppedCalibrating(t, r)
		after, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
		require.NoError(t, err)
		old, tuned := byName(before.Params), byName(after.Params)
		want, err := normalizedNetwork(methods(weights, acts), 0, 5)
		require.NoError(t, err)
		require.NoError(t, adopt(want, before.Params))
		require.NoError(t, Calibrate(want, r.Data.Train, r.Config.Calibration))
		scales := 0
		for _, p := range want.Params() {
			got := tuned[p.Name]
			require.Equal(t, p.Data(), got.Data, p.Name)
			if !p.Theta {
				require.Equal(t, old[p.Name], got)
				continue
			}
			scales++
			require.NotEqual(t, old[p.Name].Data, got.Data, "%s is the run's", p.Name)
		}
		require.GreaterOrEqual(t, scales, 6)
		r = newRig(t, folder, func(c *Config) { *c = r.Config })
		r.Resume = true
		require.Equal(t, 1.0, *r.complete(t).Agreement)
	}
}

// What a run of an earlier version has not written is as it was then.
func TestResumeOfARunWithoutNewerSettings(t *testing.T) {
	folder := copied(t)
	_, want := finishedRun(t)
	text := regexp.MustCompile(`(?m)^(temperature|distill_weight|freeze_bn): .*\n`).ReplaceAllString(string(read(t, folder, ConfigFile)), "")
	require.Equal(t, strings.Count(string(read(t, folder, ConfigFile)), "\n")-3, strings.Count(text, "\n"))
	require.NoError(t, os.WriteFile(filepath.Join(folder, ConfigFile), []byte(text), 0o644))
	c, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
	require.NoError(t, err)
	c.Config = text
	require.NoError(t, c.Save(filepath.Join(folder, CheckpointFile)))
	r := newRig(t, folder, nil)
	r.Resume = true
	require.Equal(t, want.WeightsSHA256, r.complete(t).WeightsSHA256)
}
