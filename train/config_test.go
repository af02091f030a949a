package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/quantops"
)

func TestConfigurationRoundTrip(t *testing.T) {
	t.Parallel()
	other := Config{
		Model: "resnet20", Data: "cifar10", DataDir: "some where", TrainImages: 5, Validation: 6, Weights: quantops.MustParse("linear:3,asymmetric"),
		EdgeBits: 0, Seed: math.MaxUint64, Init: "a: b.safetensors", InitHash: "12e4",
		Teacher: "../t", TeacherModel: "resnet56", TeacherHash: "00", Temperature: 2.5, DistillWeight: 1, FreezeBN: 4, FoldBN: true, Winograd: true, Batch: 7, Optimizer: "sgd", Momentum: 0.1, Nesterov: true,
		WeightDecay: 1e-7, Decoupled: true, Smoothing: 1.0 / 3, Calibration: 8, CheckpointSteps: 9,
		Float:     PhaseConfig{Epochs: 0, LearningRate: 5e-324, Schedule: "multistep,at=1.5:2,gamma=0.5"},
		Quantized: PhaseConfig{Epochs: 11, LearningRate: 1e6, Schedule: "constant"},
	}
	for _, c := range []Config{DefaultConfig(), other} {
		require.NoError(t, c.Validate())
		text, err := c.Encode()
		require.NoError(t, err)
		got, err := ParseConfig(text)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
}

func TestConfigurationDefaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "# nothing\n", "{}\n"} {
		c, err := ParseConfig([]byte(text))
		require.NoError(t, err, "%q", text)
		require.Equal(t, DefaultConfig(), c)
	}
	want := DefaultConfig()
	want.Batch, want.Quantized.Epochs, want.Weights = 32, 7, quantops.MustParse("none")
	c, err := ParseConfig([]byte("batch: 32.0\nquantized: {epochs: 7}\nweights: none\n"))
	require.NoError(t, err)
	require.Equal(t, want, c)
}

// Every mistake is a *UsageError of one line.
func TestConfigurationMistakes(t *testing.T) {
	t.Parallel()
	_, unknown := quantops.Parse("lsr:4")
	require.Error(t, unknown)
	for text, want := range map[string]string{
		"batchs: 5":                                 "train: configuration: line 1: unknown setting \"batchs\"",
		"float:\n  lr: 5":                           "train: configuration: line 2: unknown setting \"lr\"",
		"batch: many":                               "train: configuration: line 1: want a whole number in range, not `many`",
		"batch: many\nseed: -1":                     "train: configuration: line 1: want a whole number in range, not `many`; line 2: want a whole number from 0 to 2^64-1, not `-1`",
		"batch: 5\nmomentum: {a: 5}\ndata: [a]":     "train: configuration: line 2: want a number, not settings; line 3: want text, not a list",
		"nesterov: 5":                               "train: configuration: line 1: want true or false, not `5`",
		"a into b not found in type c: 5":           `train: configuration: line 1: unknown setting "a into b not found in type c"`,
		"batch: ' into int'":                        "train: configuration: line 1: want a whole number in range, not ` into int`",
		"weights: [4]":                              "train: configuration: line 1: want a method such as lsq:4, not a list",
		"batch: 99999999999999999999":               "train: configuration: line 1: want a whole number in range, not `9999999...`",
		"float: 5":                                  "train: configuration: line 1: want settings, not `5`",
		"float: [5]":                                "train: configuration: line 1: want settings, not a list",
		"batch: 1.5":                                "train: configuration: batch: 1.5 is not a whole number in range",
		"quantized: {epochs: 2.5}":                  "train: configuration: epochs: 2.5 is not a whole number in range",
		"batch: 5\nbatch: 6":                        `train: configuration: line 2: mapping key "batch" already defined at line 1`,
		"hello":                                     "train: configuration: line 1: want settings, not `hello`",
		"batch: [":                                  "train: configuration: yaml: line 1: did not find expected node content",
		"batch: 5\n---\nbatch: 6":                   "train: configuration: there is something after its end",
		"weights: lsr:4":                            "train: configuration: " + unknown.Error(),
		"acts: lsq:9":                               `train: configuration: quantops: method "lsq:9": lsq has 2 to 8 bits`,
		"batch: 0":                                  "train: batch of 0 images: want 1 to 1048576",
		"batch: -3":                                 "train: batch of -3 images: want 1 to 1048576",
		"batch: 1048577":                            "train: batch of 1048577 images: want 1 to 1048576",
		"edge_bits: 1":                              "train: 1 edge bits: want 2 to 8, or 0 for the bits of the other layers",
		"edge_bits: 9":                              "train: 9 edge bits: want 2 to 8, or 0 for the bits of the other layers",
		"train_images: -1":                          "train: train_images, validation and checkpoint_steps are 0 or more",
		"validation: -1":                            "train: train_images, validation and checkpoint_steps are 0 or more",
		"checkpoint_steps: -1":                      "train: train_images, validation and checkpoint_steps are 0 or more",
		"calibration: 0":                            "train: calibration on 0 images: want at least 1",
		"label_smoothing: 1.1":                      "train: label smoothing 1.1: want 0 to 1",
		"label_smoothing: .nan":                     "train: label smoothing NaN: want 0 to 1",
		"momentum: 1":                               "train: momentum 1: want at least 0 and less than 1",
		"momentum: .nan":                            "train: momentum NaN: want at least 0 and less than 1",
		"weight_decay: -1e-3":                       "train: weight decay -0.001: want 0 to 1",
		"weight_decay: .inf":                        "train: weight decay +Inf: want 0 to 1",
		"init_hash: 12":                             "train: init_hash without init: want the file that it is the hash of",
		"{optimizer: adamw, nesterov: true}":        "train: nesterov and decoupled are of the optimizer sgd; adamw has its own moments and always decouples weight decay",
		"teacher_hash: 12":                          "train: teacher_model or teacher_hash without teacher: want the file that they are of",
		"teacher_model: x":                          "train: teacher_model or teacher_hash without teacher: want the file that they are of",
		"{teacher: x, temperature: 0}":              "train: temperature 0: want more than 0 and at most 1000",
		"{teacher: x, temperature: .nan}":           "train: temperature NaN: want more than 0 and at most 1000",
		"{teacher: x, temperature: 1001}":           "train: temperature 1001: want more than 0 and at most 1000",
		"{teacher: x, distill_weight: 0}":           "train: distill_weight 0: want more than 0 and at most 1; without a teacher there is no distillation",
		"{teacher: x, distill_weight: 1.5}":         "train: distill_weight 1.5: want more than 0 and at most 1; without a teacher there is no distillation",
		"freeze_bn: -1":                             "train: freeze_bn -1: want 0 to 2, the epochs of the quantized phase",
		"freeze_bn: 3":                              "train: freeze_bn 3: want 0 to 2, the epochs of the quantized phase",
		"{freeze_bn: 1, weights: none, acts: none}": "train: freeze_bn is of the quantized phase: it needs a method of weights or activations",
		"{fold_bn: true, weights: none}":            "train: fold_bn is of the quantizer of the weights: it needs a method of weights",
		"optimizer: adam":                           `train: unknown optimizer "adam" (known: adamw, sgd)`,
		"float: {epochs: -1}":                       "train: -1 epochs: want 0 to 1048576",
		"quantized: {epochs: 1048577}":              "train: 1048577 epochs: want 0 to 1048576",
		"float: {learning_rate: 0}":                 "train: learning rate 0: want more than 0 and at most 1e+06",
		"float: {learning_rate: 2e6}":               "train: learning rate 2e+06: want more than 0 and at most 1e+06",
		"float: {learning_rate: .nan}":              "train: learning rate NaN: want more than 0 and at most 1e+06",
		"quantized: {schedule: cosin}":              `train: schedule "cosin": unknown schedule "cosin": did you mean "cosine"? (known: constant, cosine, exponential, multistep, step)`,
		"quantized: {schedule: 'step'}":             `train: schedule "step": the key "every" is missing`,
	} {
		_, err := ParseConfig([]byte(text))
		require.EqualError(t, err, want, "%q", text)
		var usage *UsageError
		require.ErrorAs(t, err, &usage, "%q", text)
	}
}

func FuzzParseConfig(f *testing.F) {
	text, err := DefaultConfig().Encode()
	require.NoError(f, err)
	f.Add(text)
	for _, seed := range []string{"", "a: &a [*a]", "batch: 1e400", "? {}", "--- ---", "weights: !!binary aGk=", "seed: 0x10", "float: null", "<<: {batch: 5}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			var usage *UsageError
			require.ErrorAs(t, err, &usage)
			return
		}
		again, err := c.Encode()
		require.NoError(t, err)
		got, err := ParseConfig(again)
		require.NoError(t, err)
		require.Equal(t, c, got)
	})
}
