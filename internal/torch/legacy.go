package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/nlpodyssey/gopickle/types"
)

const (
	legacyMagic   = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." // the pickle of 0x1950a86a20f9469cfc6c
	legacyVersion = "\x80\x02M\xe9\x03."                                        // the pickle of 1001
	countBytes    = 8                                                           // the element count before a storage
)

// openLegacy reads the pickles of a legacy file and finds its storages. What follows the last storage is not read.
func (a *archive) openLegacy() (any, error) {
	head := make([]byte, min(a.size, maxPickle))
	if err := a.readAt(head, 0); err != nil {
		return nil, err
	}
	at := len(legacyMagic) + len(legacyVersion)
	if len(head) < at || string(head[len(legacyMagic):at]) != legacyVersion {
		return nil, formatErrorf("the legacy format's protocol version is not 1001")
	}
	var objects [3]any // the writer's machine, what was saved, the keys of storages
	for i := range objects {
		object, length, err := a.unpickle(head[at:])
		if err != nil {
			return nil, err
		}
		objects[i] = object
		at += length
	}
	if lookup(dictionary(objects[0]), "little_endian") != any(true) {
		return nil, formatErrorf("it was not written on a little-endian machine")
	}
	a.open = a.legacyStorage
	return objects[1], a.locate(objects[2], int64(at))
}

// locate finds the bytes of the storages, whose keys are in order, from an offset on.
func (a *archive) locate(keys any, at int64) error {
	list, ok := keys.(*types.List)
	if !ok {
		return formatErrorf("the list of storages is missing")
	}
	for _, k := range *list {
		key, isKey := k.(string)
		s := a.storages[key]
		if !isKey || s == nil || s.located {
			return formatErrorf("the list of storages names %.80q, which no tensor uses or which came before", key)
		}
		var count [countBytes]byte
		if err := a.readAt(count[:], at); err != nil {
			return err
		}
		if n := binary.LittleEndian.Uint64(count[:]); n != uint64(s.elements) {
			return formatErrorf("storage %.80q has %d elements where its tensors say %d", key, n, s.elements)
		}
		s.offset, s.located = at+countBytes, true
		at = s.offset + int64(s.elements)*int64(s.class.bytes)
		if at > a.size {
			return formatErrorf("storage %.80q would end at byte %d; the file has %d", key, at, a.size)
		}
	}
	return nil
}

func (a *archive) legacyStorage(s *storage) ([]byte, error) {
	if !s.located {
		return nil, formatErrorf("storage %.80q is not in the list of storages", s.key)
	}
	data := make([]byte, s.elements*s.class.bytes)
	return data, a.readAt(data, s.offset)
}

// readAt fills data from the file.
func (a *archive) readAt(data []byte, at int64) error {
	n, err := a.reader.ReadAt(data, at)
	if n == len(data) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return formatErrorf("the file ends at byte %d, %d bytes early", at+int64(n), len(data)-n)
	}
	return fmt.Errorf("torch: %w", err)
}
