package quantops

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Method is a parsed method string: which projection, how many bits, which options. The zero Method is "none".
type Method struct {
	spec    *Spec
	bits    int
	options Options
}

// MethodError says what is wrong with a method string.
type MethodError struct{ Text, Reason string }

func (e *MethodError) Error() string {
	return fmt.Sprintf("quantops: method %q: %s", e.Text, e.Reason)
}

// Parse reads a method string: none, NAME:BITS[,OPTION[=VALUE]…], or NAME[:OPTION[=VALUE],…] of a method without bits.
func Parse(text string) (Method, error) {
	if text == "none" {
		return Method{}, nil
	}
	head, _, _ := strings.Cut(text, ",")
	name, _, _ := strings.Cut(head, ":")
	spec, err := Lookup(name)
	if err != nil {
		return Method{}, err
	}
	m := Method{spec: spec}
	options, hasOptions := strings.TrimPrefix(text, name), text != name
	if spec.hasBits() {
		var bits string
		bits, options, hasOptions = strings.Cut(options, ",")
		if m.bits, err = spec.parseBits(text, bits); err != nil {
			return Method{}, err
		}
	} else if hasOptions && options[0] != ':' {
		return Method{}, &MethodError{text, fmt.Sprintf("options of %s follow a colon; write %q", name, name+":"+options[1:])}
	}
	if hasOptions {
		if m.options, err = spec.parseOptions(text, strings.TrimPrefix(options, ":")); err != nil {
			return Method{}, err
		}
	}
	return m, nil
}

// parseBits reads a colon and a number of bits that the method has.
func (s *Spec) parseBits(text, part string) (int, error) {
	digits, ok := strings.CutPrefix(part, ":")
	if !ok {
		return 0, &MethodError{text, fmt.Sprintf("the number of bits is missing; write for example %q", s.Name+":"+strconv.Itoa(max(s.Weights.Max, s.Activations.Max)))}
	}
	bits, err := strconv.Atoi(digits)
	if err != nil {
		return 0, &MethodError{text, fmt.Sprintf("%q is not a number of bits", digits)}
	}
	if !s.Weights.has(bits) && !s.Activations.has(bits) {
		return 0, &MethodError{text, fmt.Sprintf("%s has %s", s.Name, s.bits())}
	}
	return bits, nil
}

// MustParse is Parse for strings known to be right; it panics on an error.
func MustParse(text string) Method {
	m, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return m
}

// None says whether the method leaves its tensor in floating point.
func (m Method) None() bool { return m.spec == nil }

// Name returns the method's name.
func (m Method) Name() string {
	if m.None() {
		return "none"
	}
	return m.spec.Name
}

// Bits returns the bits of a code; 32 for none, 0 for methods without bits.
func (m Method) Bits() int {
	if m.None() {
		return 32
	}
	return m.bits
}

// WithBits returns the method at another number of bits; where it has no such version, linear at these bits.
// It is how first and last layers get their own precision.
func (m Method) WithBits(bits int) Method {
	switch {
	case m.None():
		return m
	case m.spec.Weights.has(bits) && m.spec.Activations.has(bits):
		m.bits = bits
		return m
	}
	return Method{spec: &linearSpec, bits: bits}
}

// String returns the canonical method string: options in the order of their documentation, defaults left out.
func (m Method) String() string {
	if m.None() {
		return "none"
	}
	var parts []string
	if m.spec.hasBits() {
		parts = append(parts, strconv.Itoa(m.bits))
	}
	for _, o := range m.spec.Options {
		switch value, ok := m.options[o.Name]; {
		case !ok || value == o.Default:
		case o.Flag():
			parts = append(parts, o.Name)
		default:
			parts = append(parts, o.Name+"="+value)
		}
	}
	if len(parts) == 0 {
		return m.spec.Name
	}
	return m.spec.Name + ":" + strings.Join(parts, ",")
}

// MarshalText and UnmarshalText let configurations hold methods as strings.
func (m Method) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText parses a method string; after an error the method is what it was.
func (m *Method) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// check refuses a role that the method does not have at its bits.
func (m Method) check(role Role) error {
	switch r := m.spec.role(role); {
	case r.Max == 0:
		return &MethodError{m.String(), fmt.Sprintf("%s is not for %s", m.spec.Name, role)}
	case !r.has(m.bits):
		return &MethodError{m.String(), fmt.Sprintf("%s of %s have %s", role, m.spec.Name, r)}
	}
	return nil
}

// Quantizer makes the method's quantizer for one tensor; nil for none.
func (m Method) Quantizer(t Target) (Quantizer, error) {
	if m.None() {
		return nil, nil
	}
	if m.spec.NewCodebook != nil && t.Role == Weights {
		return nil, &MethodError{m.String(), "its codes stand for several weights: it has a codebook instead of a quantizer"}
	}
	if err := m.check(t.Role); err != nil {
		return nil, err
	}
	if m.spec.New == nil {
		return nil, &MethodError{m.String(), m.spec.Name + " quantizes no given tensor"}
	}
	q, err := m.spec.New(m.bits, m.options, t)
	if err != nil {
		return nil, &MethodError{m.String(), err.Error()}
	}
	return q, nil
}

// HasCodebook says whether the method's codes stand for vectors of weights, or for values, from a list.
func (m Method) HasCodebook() bool { return !m.None() && m.spec.NewCodebook != nil }

// Codebook describes the codebook of a weight tensor of the shape [outputs][…]; nil for methods that have a quantizer or none.
func (m Method) Codebook(shape []int) (*Codebook, error) {
	if !m.HasCodebook() {
		return nil, nil
	}
	c, err := m.spec.NewCodebook(m.bits, m.options, shape)
	if err != nil {
		return nil, &MethodError{m.String(), err.Error()}
	}
	return c, nil
}

// Options holds the options that a method string names; absent ones have their defaults.
type Options map[string]string

// Option documents one option of a method. Values lists what it may be, the default first; a flag is an option of
// false and true, and its name alone stands for true.
type Option struct {
	Name, Doc, Default string
	Values             []string                 // allowed values; nil where Check decides
	Check              func(value string) error // nil where Values decides
}

// Flag says whether the option is false or true.
func (o *Option) Flag() bool { return o.Default == "false" }

func (o *Option) accepts(value string) error {
	if o.Check != nil {
		return o.Check(value)
	}
	if !slices.Contains(o.values(), value) {
		return fmt.Errorf("is one of %s", strings.Join(o.values(), ", "))
	}
	return nil
}

func (o *Option) values() []string {
	if o.Flag() {
		return []string{"false", "true"}
	}
	return o.Values
}

func (s *Spec) parseOptions(text, list string) (Options, error) {
	options := Options{}
	for _, item := range strings.Split(list, ",") {
		name, value, hasValue := strings.Cut(item, "=")
		i := slices.IndexFunc(s.Options, func(o Option) bool { return o.Name == name })
		if i < 0 {
			return nil, &MethodError{text, fmt.Sprintf("no option %q; %s has %s", name, s.Name, s.optionNames())}
		}
		if !hasValue && s.Options[i].Flag() {
			value = "true"
		}
		if _, twice := options[name]; twice {
			return nil, &MethodError{text, fmt.Sprintf("option %q is given twice", name)}
		}
		if err := s.Options[i].accepts(value); err != nil {
			return nil, &MethodError{text, fmt.Sprintf("option %s=%q: %s %v", name, value, name, err)}
		}
		options[name] = value
	}
	return options, nil
}

// given says whether an option differs from its default.
func (s *Spec) given(options Options, name string) bool {
	for _, o := range s.Options {
		if o.Name == name {
			return s.option(options, name) != o.Default
		}
	}
	return false
}

// option returns the value of an option, its default where it is not given.
func (s *Spec) option(options Options, name string) string {
	if value, ok := options[name]; ok {
		return value
	}
	for _, o := range s.Options {
		if o.Name == name {
			return o.Default
		}
	}
	panic("quantops: " + s.Name + " has no option " + name)
}
