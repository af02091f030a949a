package torch

import (
	"bytes"
	"encoding/binary"
)

const (
	maxOpcodes = 1 << 18 // of a pickle; a tensor takes about 30
	maxWritten = 8 << 20 // bytes of arguments, those of memoized objects once more for every reference
	maxLine    = 256     // bytes of a module's or class's name
)

// opcode is an instruction of the pickle machine that torch.save writes at protocol 2.
type opcode struct {
	name     string
	argument int  // bytes after it; negative: a count of that many bytes, and as many as it says; lines: two lines
	makes    bool // leaves an object on the stack that it made
}

const lines = -100

var opcodes = map[byte]opcode{
	0x80: {"PROTO", 1, false},
	'.':  {"STOP", 0, false},
	'(':  {"MARK", 0, false},
	'N':  {"NONE", 0, false},
	0x88: {"NEWTRUE", 0, false},
	0x89: {"NEWFALSE", 0, false},
	'K':  {"BININT1", 1, false},
	'M':  {"BININT2", 2, false},
	'J':  {"BININT", 4, false},
	0x8a: {"LONG1", -1, false},
	'G':  {"BINFLOAT", 8, false},
	'X':  {"BINUNICODE", -4, true},
	'U':  {"SHORT_BINSTRING", -1, true},
	'T':  {"BINSTRING", -4, true},
	')':  {"EMPTY_TUPLE", 0, true},
	't':  {"TUPLE", 0, true},
	0x85: {"TUPLE1", 0, true},
	0x86: {"TUPLE2", 0, true},
	0x87: {"TUPLE3", 0, true},
	']':  {"EMPTY_LIST", 0, true},
	'a':  {"APPEND", 0, false},
	'e':  {"APPENDS", 0, false},
	'}':  {"EMPTY_DICT", 0, true},
	's':  {"SETITEM", 0, false},
	'u':  {"SETITEMS", 0, false},
	'c':  {"GLOBAL", lines, true},
	'R':  {"REDUCE", 0, true},
	'b':  {"BUILD", 0, false},
	'Q':  {"BINPERSID", 0, true},
	'q':  {"BINPUT", 1, false},
	'r':  {"LONG_BINPUT", 4, false},
	'h':  {"BINGET", 1, false},
	'j':  {"LONG_BINGET", 4, false},
}

// scanner walks a pickle without running it.
type scanner struct {
	data    []byte
	at      int
	memo    map[uint32]int // argument bytes of each memoized object
	made    int            // argument bytes of the object that the last opcode made; -1 for none
	written int
}

// scan returns the length of the pickle at the start of data. The error is a *FormatError if it has an opcode or class
// that no state dictionary needs, or if running it could take memory out of proportion: an argument that is longer than data,
// or long strings referred to over and over, which an error message of the pickle machine would write out.
func scan(data []byte) (int, error) {
	s := &scanner{data: data, memo: map[uint32]int{}, made: -1}
	for range maxOpcodes {
		if s.at >= len(data) {
			return 0, formatErrorf("the pickle ends before its STOP")
		}
		code := data[s.at]
		s.at++
		if err := s.step(code); err != nil {
			return 0, err
		}
		if code == '.' {
			return s.at, nil
		}
	}
	return 0, formatErrorf("the pickle has more than %d opcodes", maxOpcodes)
}

// step walks over the argument of one opcode.
func (s *scanner) step(code byte) error {
	op, ok := opcodes[code]
	if !ok {
		return formatErrorf("pickle opcode 0x%02x: PyTorch writes none such at its own pickle protocol, 2", code)
	}
	argument, err := s.argument(op)
	if err != nil {
		return err
	}
	made := -1
	if op.makes {
		made = len(argument)
	}
	s.written += len(argument)
	switch code {
	case 0x80:
		err = protocol(argument[0])
	case 'c':
		err = knownClass(argument)
	case 'q', 'r':
		err = s.put(index(argument))
	case 'h', 'j':
		err = s.get(index(argument))
	}
	s.made = made
	if err == nil && s.written > maxWritten {
		err = formatErrorf("strings and references to them have more than %d bytes", maxWritten)
	}
	return err
}

// argument returns what follows an opcode and moves past it.
func (s *scanner) argument(op opcode) ([]byte, error) {
	rest := s.data[s.at:]
	length, err := op.argument, error(nil)
	switch {
	case op.argument == lines:
		length, err = twoLines(rest)
	case op.argument < 0:
		length, err = counted(rest, -op.argument)
	}
	if err != nil {
		return nil, err
	}
	if length > len(rest) {
		return nil, formatErrorf("%s: %d bytes, but the pickle ends after %d", op.name, length, len(rest))
	}
	s.at += length
	return rest[:length], nil
}

// counted returns the length of a count of width bytes with what it counts.
func counted(rest []byte, width int) (int, error) {
	if len(rest) < width {
		return 0, formatErrorf("the pickle ends inside a count")
	}
	n := index(rest[:width])
	if n > maxPickle {
		return 0, formatErrorf("a string of %d bytes: a pickle has at most %d", n, maxPickle)
	}
	return width + int(n), nil
}

func twoLines(rest []byte) (int, error) {
	rest = rest[:min(len(rest), 2*maxLine)]
	first := bytes.IndexByte(rest, '\n') + 1
	second := bytes.IndexByte(rest[first:], '\n') + 1
	if first == 0 || second == 0 {
		return 0, formatErrorf("a class without a module or name of at most %d bytes", maxLine)
	}
	return first + second, nil
}

// index reads a little-endian number of 1 or 4 bytes.
func index(b []byte) uint32 {
	if len(b) == 1 {
		return uint32(b[0])
	}
	return binary.LittleEndian.Uint32(b)
}

func protocol(version byte) error {
	if version != 2 {
		return formatErrorf("pickle protocol %d: want 2, which torch.save writes unless told otherwise", version)
	}
	return nil
}

func knownClass(argument []byte) error {
	module, name, _ := bytes.Cut(argument, []byte("\n"))
	_, err := findClass(string(module), string(bytes.TrimSuffix(name, []byte("\n"))))
	return err
}

// put memoizes the object that the last opcode made. Python's pickler does so at once; at any other moment the size of
// the object would be unknown here.
func (s *scanner) put(i uint32) error {
	if s.made < 0 {
		return formatErrorf("the pickle memoizes an object that was not just made")
	}
	s.memo[i] = s.made
	return nil
}

func (s *scanner) get(i uint32) error {
	size, ok := s.memo[i]
	if !ok {
		return formatErrorf("the pickle refers to object %d, which it has not memoized", i)
	}
	s.written += size
	return nil
}
