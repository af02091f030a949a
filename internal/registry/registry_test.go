package registry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func sample() *Registry[int] {
	r := New[int]("model")
	r.Register("resnet20", 20)
	r.Register("lenet5", 5)
	return r
}

func TestLookup(t *testing.T) {
	v, err := sample().Lookup("lenet5")
	require.NoError(t, err)
	require.Equal(t, 5, v)
}

func TestNamesAndAllAreSorted(t *testing.T) {
	require.Equal(t, []string{"lenet5", "resnet20"}, sample().Names())
	require.Equal(t, []int{5, 20}, sample().All())
}

func TestUnknownError(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"lenet", `unknown model "lenet": did you mean "lenet5"? (known: lenet5, resnet20)`},
		{"ResNet20", `unknown model "ResNet20": did you mean "resnet20"? (known: lenet5, resnet20)`},
		{"resnet-20", `unknown model "resnet-20": did you mean "resnet20"? (known: lenet5, resnet20)`},
		{"alexnet", `unknown model "alexnet" (known: lenet5, resnet20)`},
		{"", `unknown model "" (known: lenet5, resnet20)`},
	} {
		_, err := sample().Lookup(test.name)
		require.EqualError(t, err, test.want)
		var unknown *UnknownError
		require.ErrorAs(t, err, &unknown)
		require.Equal(t, test.name, unknown.Name)
	}
}

func TestUnknownInEmptyRegistry(t *testing.T) {
	_, err := New[int]("dataset").Lookup("mnist")
	require.EqualError(t, err, `unknown dataset "mnist"`)
}

func TestLongNamesAreNotCompared(t *testing.T) {
	r := New[int]("model")
	r.Register(strings.Repeat("a", 70), 0)
	_, err := r.Lookup(strings.Repeat("a", 71))
	require.NotContains(t, err.Error(), "did you mean")
}

func TestRegisterPanicsOnCallerBugs(t *testing.T) {
	require.PanicsWithValue(t, `registry: model "lenet5" registered twice`, func() { sample().Register("lenet5", 1) })
	require.PanicsWithValue(t, "registry: model without a name", func() { sample().Register("", 1) })
}

func TestEditDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"lqs", "lsq", 1}, // a swap is one edit
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"same", "same", 0},
	} {
		require.Equal(t, test.want, editDistance(test.a, test.b), "%q %q", test.a, test.b)
	}
}
