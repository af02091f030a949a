package quantops

import (
	"fmt"
	"strings"

	"github.com/goqat/goqat/internal/registry"
)

// Bits is a range of bit-widths; the zero value is none.
type Bits struct{ Min, Max int }

func (b Bits) has(bits int) bool { return b.Min <= bits && bits <= b.Max && bits > 0 }

func (b Bits) String() string {
	if b.Max == 0 {
		return "no bits"
	}
	return fmt.Sprintf("%d to %d bits", b.Min, b.Max)
}

// Spec describes a method to the registry.
type Spec struct {
	Name        string // as users name it, lower case
	Doc         string // one line
	Paper       string // authors, title, year
	Weights     Bits   // bits of its weight codes
	Activations Bits   // bits of its activation codes
	Options     []Option
	// New makes a quantizer. Options have been checked against the list above; bits against the role.
	New func(bits int, options Options, t Target) (Quantizer, error)
	// NewCodebook describes the codebook of weights of a shape [outputs][…]. It is there instead of New for methods of
	// weights whose codes stand for vectors of weights; those have bits only where bits name the number of vectors.
	NewCodebook func(bits int, options Options, shape []int) (*Codebook, error)
	// Relax makes a relaxation instead, of a method that searches for weights.
	Relax func(bits int, options Options, t Target) (Relaxation, error)
}

var methods = registry.New[*Spec]("method")

// Register adds a method; its name, documentation and paper must be there, and the name new.
func Register(s *Spec) {
	if s.Doc == "" || s.Paper == "" || !s.hasConstructor() {
		panic("quantops: method " + s.Name + " lacks its documentation, paper or constructor")
	}
	methods.Register(s.Name, s)
}

// hasConstructor says whether there is one of the kinds of constructors.
func (s *Spec) hasConstructor() bool {
	n := 0
	for _, there := range []bool{s.New != nil, s.NewCodebook != nil, s.Relax != nil} {
		if there {
			n++
		}
	}
	return n == 1
}

// Lookup finds a method by name.
func Lookup(name string) (*Spec, error) {
	s, err := methods.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("quantops: %w", err)
	}
	return s, nil
}

// All returns every method in the order of their names.
func All() []*Spec { return methods.All() }

// hasBits says whether method strings name a number of bits.
func (s *Spec) hasBits() bool { return s.Weights.Max > 0 || s.Activations.Max > 0 }

func (s *Spec) role(r Role) Bits {
	if r == Weights {
		return s.Weights
	}
	return s.Activations
}

func (s *Spec) bits() string {
	if s.Weights == s.Activations {
		return s.Weights.String()
	}
	return fmt.Sprintf("%s for weights and %s for activations", s.Weights, s.Activations)
}

func (s *Spec) optionNames() string {
	if len(s.Options) == 0 {
		return "none"
	}
	names := make([]string, len(s.Options))
	for i, o := range s.Options {
		names[i] = o.Name
	}
	return strings.Join(names, ", ")
}
