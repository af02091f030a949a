package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/goqat/goqat/internal/atomicfile"
	"github.com/goqat/goqat/internal/safetensors"
	"github.com/goqat/goqat/layers"
)

// Checkpoint is everything that a training needs to go on to the same bits: parameters (weights, ranges, running
// statistics), optimizer, and the position, from which all random streams follow. The file is a safetensors
// file with a checksum over its tensors and state.
type Checkpoint struct {
	Config    string   // of the run, as in its config.yaml
	Phase     Phase    // that Position belongs to
	Position  Position // how far the phase has come
	Accuracy  float64  // of the float network, once its phase is over
	Seconds   float64  // spent so far
	Trained   Speed    // images and seconds of training steps so far
	Metrics   []Metric // of the epochs so far
	Params    []Tensor // every parameter, in the order of the network
	Optimizer []State
}

// Speed counts images and the seconds that training steps on them took.
type Speed struct {
	Images  int     `json:"images"`
	Seconds float64 `json:"seconds"`
}

// Tensor is a parameter by name.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// CheckpointError says what is wrong with a checkpoint.
type CheckpointError struct{ Reason string }

func (e *CheckpointError) Error() string { return "train: checkpoint: " + e.Reason }

func checkpointErrorf(format string, args ...any) error {
	return &CheckpointError{fmt.Sprintf(format, args...)}
}

// checkpointState is what the file's metadata hold as JSON.
type checkpointState struct {
	Config   string            `json:"config"`
	Phase    Phase             `json:"phase"`
	Position Position          `json:"position"`
	Accuracy float64           `json:"accuracy"`
	Seconds  float64           `json:"seconds"`
	Trained  Speed             `json:"trained"`
	Metrics  []Metric          `json:"metrics"`
	Steps    map[string]uint64 `json:"optimizer_steps"`
}

const (
	checkpointFormat  = "goqat checkpoint"
	checkpointVersion = "1"
	paramPrefix       = "parameter/"
	optimizerPrefix   = "optimizer/"
)

// Encode returns the checkpoint's bytes.
func (c *Checkpoint) Encode() ([]byte, error) {
	state := checkpointState{c.Config, c.Phase, c.Position, c.Accuracy, c.Seconds, c.Trained, c.Metrics, map[string]uint64{}}
	file := &safetensors.File{}
	for _, t := range c.Params {
		file.Tensors = append(file.Tensors, safetensors.FromFloat32(paramPrefix+t.Name, t.Shape, t.Data))
	}
	for _, s := range c.Optimizer {
		state.Steps[s.Name] = s.Steps
		name := optimizerPrefix + s.Name
		if s.Float64 != nil {
			file.Tensors = append(file.Tensors, safetensors.FromFloat64(name, []int{len(s.Float64)}, s.Float64))
			continue
		}
		file.Tensors = append(file.Tensors, safetensors.FromFloat32(name, []int{len(s.Float32)}, s.Float32))
	}
	text, err := json.Marshal(state)
	if err != nil {
		return nil, checkpointErrorf("%v", err)
	}
	file.Metadata = map[string]string{
		"format": checkpointFormat, "version": checkpointVersion, "state": string(text), "sha256": checksum(string(text), file.Tensors),
	}
	data, err := safetensors.Encode(file)
	if err != nil {
		return nil, checkpointErrorf("%v", err)
	}
	return data, nil
}

// checksum is the SHA-256 of the state and of every tensor's name, type, shape and data, in the order of names.
func checksum(state string, tensors []safetensors.Tensor) string {
	sorted := slices.SortedFunc(slices.Values(tensors), func(a, b safetensors.Tensor) int { return strings.Compare(a.Name, b.Name) })
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", state)
	for _, t := range sorted {
		fmt.Fprintf(h, "%q %s %v\n", t.Name, t.Dtype, t.Shape)
		h.Write(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// DecodeCheckpoint reads a checkpoint's bytes; what is wrong with them is a *[CheckpointError].
func DecodeCheckpoint(data []byte) (*Checkpoint, error) {
	file, err := safetensors.Decode(data)
	if err != nil {
		return nil, checkpointErrorf("it is not a whole safetensors file: %v", err)
	}
	m := file.Metadata
	switch {
	case m["format"] != checkpointFormat:
		return nil, checkpointErrorf("it is a safetensors file but no checkpoint of goqat")
	case m["version"] != checkpointVersion:
		return nil, checkpointErrorf("version %q; this program reads version %s", m["version"], checkpointVersion)
	case m["sha256"] != checksum(m["state"], file.Tensors):
		return nil, checkpointErrorf("its checksum is wrong: the file is damaged")
	}
	var s checkpointState
	if err := json.Unmarshal([]byte(m["state"]), &s); err != nil {
		return nil, checkpointErrorf("state: %v", err)
	}
	if s.Position.Step < 0 || s.Position.LossSteps < 0 || s.Phase > QuantizedPhase {
		return nil, checkpointErrorf("its position, step %d of phase %d, is impossible", s.Position.Step, s.Phase)
	}
	c := &Checkpoint{Config: s.Config, Phase: s.Phase, Position: s.Position, Accuracy: s.Accuracy, Seconds: s.Seconds, Trained: s.Trained, Metrics: s.Metrics}
	for i := range file.Tensors {
		if err := c.addTensor(&file.Tensors[i], s.Steps); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// isCheckpoint says whether the bytes are those of a checkpoint, whole or not, and not of another kind of file.
func isCheckpoint(data []byte) bool {
	file, err := safetensors.Decode(data)
	return err == nil && file.Metadata["format"] == checkpointFormat
}

// addTensor adds a tensor of the file to the parameters or the optimizer's state.
func (c *Checkpoint) addTensor(t *safetensors.Tensor, steps map[string]uint64) error {
	if name, ok := strings.CutPrefix(t.Name, paramPrefix); ok {
		data, err := t.Float32()
		if err != nil {
			return checkpointErrorf("%v", err)
		}
		if bad := firstNonFinite(data); bad >= 0 {
			return checkpointErrorf("parameter %q is NaN or Inf at element %d", name, bad)
		}
		c.Params = append(c.Params, Tensor{name, t.Shape, data})
		return nil
	}
	name, ok := strings.CutPrefix(t.Name, optimizerPrefix)
	if !ok {
		return checkpointErrorf("tensor %q is neither a parameter nor the optimizer's", t.Name)
	}
	s := State{Name: name, Steps: steps[name]}
	var err error
	if t.Dtype == "F64" {
		s.Float64, err = t.Float64()
	} else {
		s.Float32, err = t.Float32()
	}
	if err != nil {
		return checkpointErrorf("%v", err)
	}
	c.Optimizer = append(c.Optimizer, s)
	return nil
}

// Save writes the checkpoint; a reader sees the old file or the new one, whole.
func (c *Checkpoint) Save(path string) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, data, 0o644); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// maxCheckpoint bounds the size of a file that is read, 16 GiB.
const maxCheckpoint = 16 << 30

// LoadCheckpoint reads a checkpoint file.
func LoadCheckpoint(path string) (*Checkpoint, error) {
	data, err := readRegular(path, "checkpoint", maxCheckpoint)
	if err != nil {
		return nil, err
	}
	c, err := DecodeCheckpoint(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return c, nil
}

// readRegular reads a regular file of at most limit bytes; kind is what it should be.
func readRegular(path, kind string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("train: %s is not a %s file", path, kind)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return data, nil
}

// sameFile says whether both paths lead to one file that is there.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	second, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(first, second)
}

// exists says whether there is something at path.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Network rebuilds the network that the checkpoint was taken of: with build, which makes it with given quantizers.
func (c *Checkpoint) Network(build func(layers.Methods) (*layers.Network, error)) (*layers.Network, error) {
	config, err := ParseConfig([]byte(c.Config))
	if err != nil {
		return nil, checkpointErrorf("%v", err)
	}
	methods := layers.Methods{}
	if c.Phase == QuantizedPhase {
		methods = config.methods()
	}
	network, err := build(methods)
	if err != nil {
		return nil, err
	}
	return network, restore(network, c.Params)
}

// snapshot copies all parameters of a network.
func snapshot(network *layers.Network) []Tensor {
	var tensors []Tensor
	for _, p := range network.Params() {
		tensors = append(tensors, Tensor{p.Name, p.Value.Shape().Clone(), slices.Clone(p.Data())})
	}
	return tensors
}

// restore sets all parameters of a network; each must be there with its shape.
func restore(network *layers.Network, tensors []Tensor) error {
	byName := tensorsByName(tensors)
	for _, p := range network.Params() {
		t, err := tensorOf(byName, p.Name, p.Value.Shape())
		if err != nil {
			return err
		}
		copy(p.Data(), t.Data)
	}
	return nil
}

// floatSnapshot copies what a network's parameters would be without quantizers.
func floatSnapshot(network *layers.Network) []Tensor {
	var tensors []Tensor
	for _, p := range network.FloatParams() {
		tensors = append(tensors, Tensor{p.Name, slices.Clone(p.Shape), slices.Clone(p.Get())})
	}
	return tensors
}

// adopt lets a network start from the parameters of one without quantizers; each must be there with its shape.
func adopt(network *layers.Network, tensors []Tensor) error {
	byName := tensorsByName(tensors)
	for _, p := range network.FloatParams() {
		t, err := tensorOf(byName, p.Name, p.Shape)
		if err != nil {
			return err
		}
		p.Set(t.Data)
	}
	return nil
}

func tensorsByName(tensors []Tensor) map[string]Tensor {
	byName := map[string]Tensor{}
	for _, t := range tensors {
		byName[t.Name] = t
	}
	return byName
}

// fits says whether the tensor has the shape of a parameter.
func (t Tensor) fits(p *layers.Param) bool { return slices.Equal(t.Shape, p.Value.Shape()) }

// tensorOf returns the tensor of a name, which must have that shape.
func tensorOf(byName map[string]Tensor, name string, shape []int) (Tensor, error) {
	t, ok := byName[name]
	if !ok {
		return t, checkpointErrorf("it has no parameter %q", name)
	}
	if !slices.Equal(t.Shape, shape) {
		return t, checkpointErrorf("parameter %q has shape %v; the network's has %v", name, t.Shape, shape)
	}
	return t, nil
}

// WeightsHash returns the SHA-256 of all parameters in the order of their names: of each the name, a zero byte and
// the elements as little-endian float32.
func WeightsHash(network *layers.Network) string {
	params := slices.SortedFunc(slices.Values(network.Params()), func(a, b *layers.Param) int { return strings.Compare(a.Name, b.Name) })
	h := sha256.New()
	for _, p := range params {
		h.Write(append([]byte(p.Name), 0))
		bytes := make([]byte, 0, 4*len(p.Data()))
		for _, v := range p.Data() {
			bytes = binary.LittleEndian.AppendUint32(bytes, math.Float32bits(v))
		}
		h.Write(bytes)
	}
	return hex.EncodeToString(h.Sum(nil))
}
