package train

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/quantops"
	"go.yaml.in/yaml/v3"
)

// Config describes a run completely: running it again gives the same weights, bit for bit. It is what config.yaml holds.
type Config struct {
	Model           string                `yaml:"model"`
	Data            string                `yaml:"data"`
	DataDir         string                `yaml:"data_dir,omitempty"`      // folder of the data set; empty for its default place
	Normalize       string                `yaml:"normalize,omitempty"`     // of pixels, instead of the data set's own; see datasets.Normalizations
	AugmentPad      int                   `yaml:"augment_pad"`             // training images are padded by so many zeros and cropped at random
	AugmentFlip     bool                  `yaml:"augment_flip"`            // and mirrored at random
	TrainImages     int                   `yaml:"train_images"`            // first so many training images; 0 means all
	Validation      int                   `yaml:"validation"`              // images split off the training set to follow the training with; 0 means none
	Weights         quantops.Method       `yaml:"weights"`                 // method of the weights
	Acts            quantops.Method       `yaml:"acts"`                    // method of the activations
	EdgeBits        int                   `yaml:"edge_bits"`               // bits of first and last layer; 0 means those of the others
	FoldBN          bool                  `yaml:"fold_bn"`                 // quantize weights as the batch normalization after them scales them; see layers.Methods
	Winograd        bool                  `yaml:"winograd"`                // train 3x3 convolutions by Winograd's algorithm where that pays; see layers.Network
	Seed            uint64                `yaml:"seed"`                    // of initial weights and the order of images
	Init            string                `yaml:"init,omitempty"`          // run folder or file that the float network starts from
	InitHash        string                `yaml:"init_hash,omitempty"`     // SHA-256 of that file
	Teacher         string                `yaml:"teacher,omitempty"`       // run folder or file of a network to learn from in both phases
	TeacherModel    string                `yaml:"teacher_model,omitempty"` // its network; empty for the run's own, or what a checkpoint says
	TeacherHash     string                `yaml:"teacher_hash,omitempty"`  // SHA-256 of its file
	Temperature     float64               `yaml:"temperature"`             // of teacher and student; see Distillation
	DistillWeight   float64               `yaml:"distill_weight"`          // of the teacher in the loss; see Distillation
	Batch           int                   `yaml:"batch"`                   // images of a step
	Optimizer       string                `yaml:"optimizer"`               // sgd or adamw
	Momentum        float64               `yaml:"momentum"`                // of sgd
	Nesterov        bool                  `yaml:"nesterov"`                // of sgd
	WeightDecay     float64               `yaml:"weight_decay"`            // L2, or decoupled
	Decoupled       bool                  `yaml:"decoupled"`               // take weight decay past the gradient (sgd; adamw always does)
	Smoothing       float64               `yaml:"label_smoothing"`         // 0 to 1
	Calibration     int                   `yaml:"calibration"`             // training images that activation ranges start from
	FreezeBN        int                   `yaml:"freeze_bn"`               // last epochs of the quantized phase in which batch normalization stands still
	Anneal          string                `yaml:"anneal"`                  // temperature of weights that are searched for; see Anneal
	StateBN         layers.StateBatchNorm `yaml:"state_bn"`                // behind weights that are searched for
	CheckpointSteps int                   `yaml:"checkpoint_steps"`        // steps between checkpoints inside an epoch; 0 means only after epochs
	Float           PhaseConfig           `yaml:"float"`                   // training of the float network
	Quantized       PhaseConfig           `yaml:"quantized"`               // training of the quantized network that starts from it
}

// maxLearningRate is far above any that trains.
const maxLearningRate = 1e6

// PhaseConfig describes one of the two trainings of a run.
type PhaseConfig struct {
	Epochs       int     `yaml:"epochs"`
	LearningRate float64 `yaml:"learning_rate"`
	Schedule     string  `yaml:"schedule"`
}

// DefaultConfig returns the run that `goqat train` makes without arguments.
func DefaultConfig() Config {
	return Config{
		Model: "lenet5", Data: "mnist", Weights: quantops.MustParse("lsq:4"), Acts: quantops.MustParse("lsq:4"), EdgeBits: 8, Seed: 1,
		Anneal: Anneal{}.String(), StateBN: layers.StateBatchNorm{On: true, Every: 1},
		Temperature: 4, DistillWeight: 0.5, Batch: 64, Optimizer: "sgd", Momentum: 0.9, WeightDecay: 1e-4, Calibration: 512,
		Float:     PhaseConfig{Epochs: 3, LearningRate: 0.05, Schedule: "cosine"},
		Quantized: PhaseConfig{Epochs: 2, LearningRate: 0.02, Schedule: "cosine"},
	}
}

// UsageError is a mistake in what a run was asked to do, as opposed to something that went wrong in doing it.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e *UsageError) Unwrap() error { return e.Err }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// ParseConfig reads a configuration as [Config.Encode] writes it; what it does not name has its default. Whatever is
// wrong with it is a *[UsageError].
func ParseConfig(text []byte) (Config, error) {
	c := DefaultConfig()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err := d.Decode(&c)
	if err == nil && !errors.Is(d.Decode(new(yaml.Node)), io.EOF) {
		err = errors.New("there is something after its end")
	}
	if err == nil {
		err = checkWhole(text, c)
	}
	if err != nil && !errors.Is(err, io.EOF) { // of an empty file
		return Config{}, usagef("train: configuration: %w", oneLine(err))
	}
	return c, c.Validate()
}

// oneLine returns an error of package yaml, which has a line for each mistake, as one line.
func oneLine(err error) error {
	var mistakes *yaml.TypeError
	if errors.As(err, &mistakes) {
		plain := make([]string, len(mistakes.Errors))
		for i, mistake := range mistakes.Errors {
			plain[i] = inPlainWords(mistake)
		}
		return errors.New(strings.Join(plain, "; "))
	}
	return err
}

// wanted says in plain words what a Go type takes.
var wanted = map[string]string{
	"int": "a whole number in range", "uint64": "a whole number from 0 to 2^64-1", "float64": "a number", "bool": "true or false", "string": "text",
	"quantops.Method": "a method such as lsq:4",
}

// inPlainWords rewrites a mistake that package yaml has found, which speaks of Go's types.
func inPlainWords(mistake string) string {
	if line, rest, ok := strings.Cut(mistake, ": field "); ok {
		if i := strings.LastIndex(rest, " not found in type "); i >= 0 {
			return fmt.Sprintf("%s: unknown setting %q", line, rest[:i])
		}
	}
	line, rest, ok := strings.Cut(mistake, ": cannot unmarshal ")
	i := strings.LastIndex(rest, " into ")
	if !ok || i < 0 {
		return mistake
	}
	want := wanted[rest[i+len(" into "):]]
	if want == "" {
		want = "settings"
	}
	tag, value, _ := strings.Cut(rest[:i], " ")
	switch tag {
	case "!!map":
		value = "settings"
	case "!!seq":
		value = "a list"
	}
	return fmt.Sprintf("%s: want %s, not %s", line, want, value)
}

// checkWhole refuses fractions where a setting is a whole number; package yaml would cut them off.
func checkWhole(text []byte, c Config) error {
	taken, err := c.Encode()
	if err != nil {
		return err
	}
	var before, after map[string]any
	if err := errors.Join(yaml.Unmarshal(text, &before), yaml.Unmarshal(taken, &after)); err != nil {
		return err
	}
	return sameNumbers(before, after)
}

// number64 returns a number that package yaml has read.
func number64(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

func sameNumbers(before, after map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(before)) {
		switch v := before[key].(type) {
		case map[string]any:
			part, _ := after[key].(map[string]any)
			if err := sameNumbers(v, part); err != nil {
				return err
			}
		default:
			given, ok := number64(v)
			taken, numeric := number64(after[key])
			if ok && numeric && given == given && taken != given { // NaN is refused by Validate
				return fmt.Errorf("%s: %v is not a whole number in range", key, v)
			}
		}
	}
	return nil
}

// maxConfig bounds the size of a configuration file.
const maxConfig = 1 << 20

// LoadConfig reads a configuration file.
func LoadConfig(path string) (Config, error) {
	text, err := readRegular(path, "configuration", maxConfig)
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("%w (%s)", err, path)
	}
	return c, nil
}

// Encode returns the configuration as YAML.
func (c Config) Encode() ([]byte, error) {
	text, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("train: configuration: %w", err)
	}
	return text, nil
}

// Validate reports the first setting that can't be.
func (c Config) Validate() error {
	switch {
	case c.Batch < 1 || c.Batch > 1<<20:
		return usagef("train: batch of %d images: want 1 to %d", c.Batch, 1<<20)
	case c.EdgeBits != 0 && (c.EdgeBits < 2 || c.EdgeBits > 8):
		return usagef("train: %d edge bits: want 2 to 8, or 0 for the bits of the other layers", c.EdgeBits)
	case c.InitHash != "" && c.Init == "":
		return usagef("train: init_hash without init: want the file that it is the hash of")
	case c.FoldBN && c.Weights.None():
		return usagef("train: fold_bn is of the quantizer of the weights: it needs a method of weights")
	case c.FreezeBN > 0 && !c.quantized():
		return usagef("train: freeze_bn is of the quantized phase: it needs a method of weights or activations")
	case c.Optimizer == "adamw" && (c.Nesterov || c.Decoupled):
		return usagef("train: nesterov and decoupled are of the optimizer sgd; adamw has its own moments and always decouples weight decay")
	case c.AugmentPad < 0:
		return usagef("train: augmentation by %d pixels of padding: want 0 or more", c.AugmentPad)
	case c.TrainImages < 0 || c.Validation < 0 || c.CheckpointSteps < 0:
		return usagef("train: train_images, validation and checkpoint_steps are 0 or more")
	case c.Calibration < 1:
		return usagef("train: calibration on %d images: want at least 1", c.Calibration)
	case !(c.Smoothing >= 0 && c.Smoothing <= 1):
		return usagef("train: label smoothing %v: want 0 to 1", c.Smoothing)
	case !(c.Momentum >= 0 && c.Momentum < 1):
		return usagef("train: momentum %v: want at least 0 and less than 1", c.Momentum)
	case !(c.WeightDecay >= 0 && c.WeightDecay <= 1):
		return usagef("train: weight decay %v: want 0 to 1", c.WeightDecay)
	}
	if _, err := c.optimizer(); err != nil {
		return err
	}
	if _, err := ParseAnneal(c.Anneal); err != nil {
		return &UsageError{err}
	}
	if err := c.validateTeacher(); err != nil {
		return err
	}
	for _, phase := range []PhaseConfig{c.Float, c.Quantized} {
		if err := phase.validate(); err != nil {
			return err
		}
	}
	if c.FreezeBN < 0 || c.FreezeBN > c.Quantized.Epochs {
		return usagef("train: freeze_bn %d: want 0 to %d, the epochs of the quantized phase", c.FreezeBN, c.Quantized.Epochs)
	}
	return nil
}

// validateTeacher reports what can't be of the settings of distillation, which matter only where there is a teacher.
func (c Config) validateTeacher() error {
	switch {
	case c.Teacher == "" && (c.TeacherModel != "" || c.TeacherHash != ""):
		return usagef("train: teacher_model or teacher_hash without teacher: want the file that they are of")
	case c.Teacher != "" && !(c.Temperature > 0 && c.Temperature <= maxTemperature):
		return usagef("train: temperature %v: want more than 0 and at most %d", c.Temperature, maxTemperature)
	case c.Teacher != "" && !(c.DistillWeight > 0 && c.DistillWeight <= 1):
		return usagef("train: distill_weight %v: want more than 0 and at most 1; without a teacher there is no distillation", c.DistillWeight)
	}
	return nil
}

func (p PhaseConfig) validate() error {
	if p.Epochs < 0 || p.Epochs > 1<<20 {
		return usagef("train: %d epochs: want 0 to %d", p.Epochs, 1<<20)
	}
	if !(p.LearningRate > 0) || p.LearningRate > maxLearningRate {
		return usagef("train: learning rate %v: want more than 0 and at most %v", p.LearningRate, maxLearningRate)
	}
	if _, err := ParseSchedule(p.Schedule); err != nil {
		return &UsageError{err}
	}
	return nil
}

// optimizer makes the optimizer of a phase.
func (c Config) optimizer() (Optimizer, error) {
	switch c.Optimizer {
	case "sgd":
		return &SGD{Momentum: c.Momentum, WeightDecay: c.WeightDecay, Nesterov: c.Nesterov, Decoupled: c.Decoupled}, nil
	case "adamw":
		return &AdamW{WeightDecay: c.WeightDecay}, nil
	}
	return nil, usagef("train: unknown optimizer %q (known: adamw, sgd)", c.Optimizer)
}

// methods returns the quantizers of the quantized network.
func (c Config) methods() layers.Methods {
	return layers.Methods{Weights: c.Weights, Activations: c.Acts, FoldBatchNorm: c.FoldBN, State: c.StateBN}
}

// quantized says whether the run has a quantized phase.
func (c Config) quantized() bool { return !c.Weights.None() || !c.Acts.None() }

// Metadata tells in an exported model where it comes from.
func (c Config) Metadata(network *layers.Network) map[string]string {
	return map[string]string{
		"model": c.Model, "data": c.Data, "weights": c.Weights.String(), "acts": c.Acts.String(), "weights_sha256": WeightsHash(network),
	}
}

// augmentation returns what happens to training images.
func (c Config) augmentation() datasets.Augmentation {
	return datasets.Augmentation{Pad: c.AugmentPad, Flip: c.AugmentFlip}
}
