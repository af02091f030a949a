package datasets

import (
	"fmt"

	"github.com/goqat/goqat/internal/registry"
)

// Split is a data set's two fixed parts.
type Split struct{ Train, Test *Dataset }

// Spec describes a data set that can be asked for by name. All fields but Files are needed.
type Spec struct {
	Name    string
	Doc     string // what the images show, how many and of which size
	Source  string // who made it, and where it is published
	License string
	Load    func(dir string) (Split, error) // reads it from the folder dir; "" is the set's default place, if it has one
	Files   *Files                          // what its authors publish, for Locate, Fetch and Verify; nil if it is part of the program or the user's own
}

var specs = registry.New[Spec]("dataset")

// Register makes a data set known. A missing field or a taken name is a mistake in the program and panics.
func Register(s Spec) {
	if s.Doc == "" || s.Source == "" || s.License == "" || s.Load == nil {
		panic("datasets: Spec of " + s.Name + " lacks a field")
	}
	specs.Register(s.Name, s)
}

// Lookup returns the data set of that name; the error says which names are known.
func Lookup(name string) (Spec, error) {
	s, err := specs.Lookup(name)
	if err != nil {
		return s, fmt.Errorf("datasets: %w", err)
	}
	return s, nil
}

// All returns every registered data set in the order of their names.
func All() []Spec { return specs.All() }
