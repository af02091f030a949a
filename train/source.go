package train

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goqat/goqat/layers"
)

// source is a file whose parameters a run takes: a run folder's checkpoint, or any other.
type source struct {
	path  string
	hash  *string // the setting that holds its SHA-256; empty before the run has seen it
	takes string  // what the run does with it, in a sentence: "starts from"
	took  string  // what it has done when it was begun: "was started from"
}

// read returns the file's path and contents, and notes their hash. It refuses another file than the run began with,
// and one that the run would overwrite.
func (s source) read(run string) (path string, data []byte, err error) {
	if path, err = checkpointOf(s.path); err != nil {
		return "", nil, err
	}
	if data, err = readRegular(path, "checkpoint", maxCheckpoint); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("train: there is no %s, which the run %s: want a run folder, a checkpoint, a PyTorch or a safetensors file", path, s.takes)
		}
		return "", nil, err
	}
	if sameFile(path, filepath.Join(run, CheckpointFile)) {
		return "", nil, usagef("train: the run would overwrite %s, which it %s", path, s.takes)
	}
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	if *s.hash != "" && hash != *s.hash {
		return "", nil, fmt.Errorf("train: %s is not the file that the run %s: its SHA-256 is %s, not %s", path, s.took, hash, *s.hash)
	}
	*s.hash = hash
	return path, data, nil
}

// checkpointOf returns the checkpoint of a run folder; any other path is that of a file itself.
func checkpointOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return path, nil // reading it says what is wrong with it
	}
	file := filepath.Join(path, CheckpointFile)
	if there, err := exists(file); err != nil || !there {
		return "", usagef("train: %s is not a run folder: it has no %s", path, CheckpointFile)
	}
	return file, nil
}

// initialize sets the network's parameters, but for those of quantizers, to those of the file that the configuration
// names, if it names one.
func (e *Experiment) initialize(network *layers.Network) error {
	c := &e.Config
	if c.Init == "" {
		return nil
	}
	path, data, err := source{c.Init, &c.InitHash, "starts from", "was started from"}.read(e.Folder)
	if err != nil {
		return err
	}
	if e.Import != nil && !isCheckpoint(data) {
		return e.Import(path, network)
	}
	from, err := DecodeCheckpoint(data)
	if err == nil {
		err = e.adoptFrom(network, from)
	}
	if err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	return nil
}

// takeCodes sets the network's codebooks to those of the run that the configuration starts from, where that had the same
// method of weights and its weights have not been trained since. It says so, and where another method had found codes.
func (e *Experiment) takeCodes(network *layers.Network) error {
	c := &e.Config
	if c.Init == "" || c.Float.Epochs > 0 || len(network.Codebooks()) == 0 {
		return nil
	}
	path, data, err := source{c.Init, &c.InitHash, "starts from", "was started from"}.read(e.Folder)
	if err != nil || !isCheckpoint(data) {
		return err
	}
	from, err := DecodeCheckpoint(data)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	before, err := ParseConfig([]byte(from.Config))
	if err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	switch {
	case before.Weights.String() != c.Weights.String():
		if from.Phase == QuantizedPhase && before.Weights.HasCodebook() {
			e.report(Event{Text: fmt.Sprintf("codes are found anew: %s has %s", c.Init, before.Weights)})
		}
	default:
		e.report(Event{Text: fmt.Sprintf("codes and centroids of %d of %s are those of %s", takeCodes(network, from.Params), plural(len(network.Codebooks()), "layer"), path)})
	}
	return nil
}

// adoptFrom lets a float network start from a checkpoint: where that has searched for weights, from the hard ones.
func (e *Experiment) adoptFrom(network *layers.Network, from *Checkpoint) error {
	config, err := ParseConfig([]byte(from.Config))
	if err != nil || from.Phase == FloatPhase || !config.Weights.Searches() || e.BuildTeacher == nil {
		return adopt(network, expanded(from.Params))
	}
	searched, err := from.Network(func(m layers.Methods) (*layers.Network, error) { return e.BuildTeacher(config, m) })
	if err != nil {
		return err
	}
	return adopt(network, floatSnapshot(searched))
}

// loadTeacher reads the network that the configuration names as the teacher, if it names one.
func (e *Experiment) loadTeacher(student *layers.Network) error {
	c := &e.Config
	if c.Teacher == "" {
		return nil
	}
	if e.BuildTeacher == nil {
		return fmt.Errorf("train: a teacher needs Experiment.BuildTeacher")
	}
	path, data, err := source{c.Teacher, &c.TeacherHash, "learns from", "was started to learn from"}.read(e.Folder)
	if err != nil {
		return err
	}
	var network *layers.Network
	if e.Import != nil && !isCheckpoint(data) {
		network, err = e.importTeacher(path)
	} else {
		network, err = e.restoreTeacher(path, data)
	}
	if err != nil {
		return err
	}
	e.distillation = &Distillation{Teacher: network, Temperature: c.Temperature, Weight: c.DistillWeight}
	if err := e.distillation.check(student); err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	return nil
}

// importTeacher makes a float teacher of a file of another kind than a checkpoint.
func (e *Experiment) importTeacher(path string) (*layers.Network, error) {
	config := e.Config
	if config.TeacherModel != "" {
		config.Model = config.TeacherModel
	}
	network, err := e.BuildTeacher(config, layers.Methods{})
	if err != nil {
		return nil, &UsageError{err}
	}
	return network, e.Import(path, network)
}

// restoreTeacher makes the teacher that a checkpoint holds, float or quantized.
func (e *Experiment) restoreTeacher(path string, data []byte) (*layers.Network, error) {
	from, err := DecodeCheckpoint(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	config, err := ParseConfig([]byte(from.Config))
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	switch c := e.Config; {
	case c.TeacherModel != "" && c.TeacherModel != config.Model:
		return nil, usagef("train: the teacher %s is a %s, not a %s", path, config.Model, c.TeacherModel)
	case c.Data != config.Data || c.Normalize != config.Normalize:
		return nil, usagef("train: the teacher %s knows images of %s, the run has %s", path, config.images(), c.images())
	}
	network, err := from.Network(func(m layers.Methods) (*layers.Network, error) { return e.BuildTeacher(config, m) })
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return network, nil
}

// images says in a sentence what a network of this configuration sees.
func (c Config) images() string {
	if c.Normalize == "" {
		return c.Data
	}
	return fmt.Sprintf("%s normalized as %s", c.Data, c.Normalize)
}
