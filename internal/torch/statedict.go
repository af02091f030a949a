package torch

import (
	"fmt"
	"strings"

	"github.com/nlpodyssey/gopickle/types"
)

// wrappers are the keys under which training scripts put the state dictionary, the first found counts.
var wrappers = []string{"state_dict", "model_state_dict", "model", "net", "network", "weights"}

// maxNesting bounds how deep a state dictionary may lie under wrappers.
const maxNesting = 3

// stateDict returns the dictionary of tensors in root.
func stateDict(root any) ([]types.DictEntry, error) {
	found, err := search(root, 0)
	if err == nil && found == nil {
		err = formatErrorf("no dictionary of tensors in it: want what model.state_dict() returns")
	}
	return found, err
}

// search returns the dictionary of tensors in v: what is under the first wrapper, else the only dictionary of tensors
// among v's values, else v itself; nil for none.
func search(v any, depth int) ([]types.DictEntry, error) {
	entries := dictionary(v)
	if depth < maxNesting {
		for _, key := range wrappers {
			if found, err := search(lookup(entries, key), depth+1); found != nil || err != nil {
				return found, err
			}
		}
	}
	names, inner := children(entries)
	switch {
	case len(names) > 1:
		return nil, formatErrorf("several dictionaries of tensors, and none is the obvious one: %s: save one of them by itself", strings.Join(names[:min(8, len(names))], ", "))
	case len(names) == 1:
		return inner, nil
	case hasTensor(entries):
		return entries, nil
	}
	return nil, nil
}

// children returns the names of the dictionaries of tensors among a dictionary's values, and the last of them.
func children(entries []types.DictEntry) (names []string, last []types.DictEntry) {
	seen := map[any]bool{} // a hostile file may refer to one large dictionary from everywhere
	for _, e := range entries {
		inner := dictionary(e.Value)
		if inner == nil || seen[e.Value] {
			continue
		}
		seen[e.Value] = true
		if name, ok := e.Key.(string); ok && hasTensor(inner) {
			names = append(names, fmt.Sprintf("%.80q", name))
			last = inner
		}
	}
	return names, last
}

// dictionary returns the entries of a dictionary in order; nil for any other value.
func dictionary(v any) []types.DictEntry {
	switch d := v.(type) {
	case *types.Dict:
		return *d
	case *types.OrderedDict:
		entries := make([]types.DictEntry, 0, d.Len())
		for e := d.List.Front(); e != nil; e = e.Next() {
			entry := e.Value.(*types.OrderedDictEntry)
			entries = append(entries, types.DictEntry{Key: entry.Key, Value: entry.Value})
		}
		return entries
	}
	return nil
}

func lookup(entries []types.DictEntry, key string) any {
	for _, e := range entries {
		if name, ok := e.Key.(string); ok && name == key {
			return e.Value
		}
	}
	return nil
}

func hasTensor(entries []types.DictEntry) bool {
	for _, e := range entries {
		if _, ok := e.Value.(*view); ok {
			return true
		}
	}
	return false
}
