package torch

import (
	"bytes"
	"errors"
	"strings"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

// function is a class of a pickle that may be called.
type function func(args ...any) (any, error)

var _ types.Callable = function(nil)

func (f function) Call(args ...any) (any, error) { return f(args...) }

// classes are all that a pickle may name; nothing of them runs code of the file.
var classes = map[string]any{
	"collections.OrderedDict":         &types.OrderedDictClass{},
	"torch._utils._rebuild_tensor":    function(rebuildTensor),
	"torch._utils._rebuild_tensor_v2": function(rebuildTensor),
	"torch._utils._rebuild_parameter": function(rebuildParameter),
}

func init() {
	for _, c := range storageClasses {
		classes["torch."+c.name] = c
	}
}

func findClass(module, name string) (any, error) {
	if class, ok := classes[module+"."+name]; ok {
		return class, nil
	}
	return nil, formatErrorf("class %q is refused: a file may hold dictionaries of tensors, numbers and strings, such as model.state_dict()", module+"."+name)
}

// unpickle runs the pickle at the start of data and returns its object and its length.
func (a *archive) unpickle(data []byte) (object any, length int, err error) {
	length, err = scan(data)
	if err != nil {
		return nil, 0, err
	}
	object, err = a.run(data[:length])
	return object, length, err
}

// run runs a pickle that scan has passed. The pickle machine indexes stacks and maps without asking first, so a
// malformed pickle may make it panic.
func (a *archive) run(data []byte) (object any, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			object, err = nil, formatErrorf("the pickle is malformed: %v", reason)
		}
	}()
	machine := pickle.NewUnpickler(bytes.NewReader(data))
	machine.FindClass = findClass
	machine.PersistentLoad = a.persistent
	object, err = machine.Load()
	var format *FormatError
	if err != nil && !errors.As(err, &format) {
		err = formatErrorf("the pickle is malformed: %s", short(err.Error()))
	}
	return object, err
}

// short cuts a message that may print whole objects to one line.
func short(message string) string {
	message, _, _ = strings.Cut(strings.ToValidUTF8(message, "?"), "\n")
	const limit = 120
	if len(message) > limit {
		return strings.ToValidUTF8(message[:limit], "") + "…"
	}
	return message
}
