// Package registry holds things under the names by which users ask for them.
package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Registry maps names to values of one kind. It may be used from several goroutines.
type Registry[T any] struct {
	kind   string
	mutex  sync.RWMutex
	values map[string]T
}

// New returns an empty registry; kind ("model", "dataset", …) is what errors call its values.
func New[T any](kind string) *Registry[T] {
	return &Registry[T]{kind: kind, values: map[string]T{}}
}

// Register adds v. An empty or a taken name is a mistake in the program and panics.
func (r *Registry[T]) Register(name string, v T) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if name == "" {
		panic("registry: " + r.kind + " without a name")
	}
	if _, taken := r.values[name]; taken {
		panic(fmt.Sprintf("registry: %s %q registered twice", r.kind, name))
	}
	r.values[name] = v
}

// Lookup returns the value of that name, or an *UnknownError.
func (r *Registry[T]) Lookup(name string) (T, error) {
	r.mutex.RLock()
	v, ok := r.values[name]
	r.mutex.RUnlock()
	if ok {
		return v, nil
	}
	known := r.Names()
	return v, &UnknownError{Kind: r.kind, Name: name, Nearest: nearest(name, known), Known: known}
}

// Names returns all names, sorted.
func (r *Registry[T]) Names() []string {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	return slices.Sorted(maps.Keys(r.values))
}

// All returns all values in the order of their names.
func (r *Registry[T]) All() []T {
	r.mutex.RLock()
	defer r.mutex.RUnlock()
	all := make([]T, 0, len(r.values))
	for _, name := range slices.Sorted(maps.Keys(r.values)) {
		all = append(all, r.values[name])
	}
	return all
}

// UnknownError reports a name that nothing is registered under.
type UnknownError struct {
	Kind, Name string
	Nearest    string   // the known name that was probably meant, or ""
	Known      []string // sorted
}

func (e *UnknownError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "unknown %s %q", e.Kind, e.Name)
	if e.Nearest != "" {
		fmt.Fprintf(&b, ": did you mean %q?", e.Nearest)
	}
	if len(e.Known) > 0 {
		fmt.Fprintf(&b, " (known: %s)", strings.Join(e.Known, ", "))
	}
	return b.String()
}

// maxName bounds the work that a name from outside can cause; no registered name comes near it.
const maxName = 64

// nearest returns the known name of the least edit distance if at most a third of the longer name differs,
// and at least one edit is always forgiven. Case does not count. Of equally near names the first is returned.
func nearest(name string, known []string) string {
	if name == "" || len(name) > maxName {
		return ""
	}
	best, bestDistance := "", maxName
	for _, candidate := range known {
		distance := editDistance(strings.ToLower(name), strings.ToLower(candidate))
		allowed := max(1, max(len(name), len(candidate))/3)
		if distance <= allowed && distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// editDistance returns the least number of edits that turn a into b, where an edit inserts, deletes or replaces a byte
// or swaps two neighbours (optimal string alignment).
func editDistance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1) // rows i-1 and i: distances of a[:i] to each prefix of b
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replace := last[j]
			if a[i] != b[j] {
				replace++
			}
			row[j+1] = min(replace, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
