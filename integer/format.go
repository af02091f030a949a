package integer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goqat/goqat/internal/atomicfile"
)

// The .goq file's fixed parts; the package comment describes the rest.
const (
	magic         = "GOQ\x00"
	plainVersion  = 1
	vectorVersion = 2 // where codes of a layer stand for vectors of weights
	headerLength  = 48
	maxPayload    = 1<<31 - 1
)

// The sections' names.
const (
	sectionMetadata = "META"
	sectionClasses  = "CLAS"
	sectionInput    = "INPT"
	sectionLayers   = "LAYR"
	sectionProgram  = "PROG"
)

// What the numbers of the format mean.
const (
	scalesShared  = 1 << 0 // one scale for all channels
	scalesFloat32 = 1 << 1

	carrierUnsigned = 0
	carrierSigned   = 1
)

// FormatError says why bytes are no .goq file.
type FormatError struct {
	File   string // path, or "" where bytes were decoded
	Offset int    // where reading stopped, in bytes from the start of the file
	Reason string // what was wrong and what would be right
}

func (e *FormatError) Error() string {
	name := e.File
	if name == "" {
		name = "model"
	}
	return fmt.Sprintf("integer: %s is no valid .goq file: byte %d: %s", name, e.Offset, e.Reason)
}

// Save writes the model to a file, which appears complete or not at all.
func Save(path string, m *Model) error {
	data, err := Encode(m)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, data, 0o644); err != nil {
		return fmt.Errorf("integer: saving a model: %w", err)
	}
	return nil
}

// Load reads a model from a file. A file that is none yields a *FormatError.
func Load(path string) (*Model, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("integer: loading a model: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(file, headerLength+maxPayload+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("integer: loading a model: %w", err)
	}
	m, err := Decode(data)
	if format := (*FormatError)(nil); errors.As(err, &format) {
		format.File = path
	}
	return m, err
}
