package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
)

func TestListForPeople(t *testing.T) {
	stdout, stderr := succeed(t, "list")
	require.Empty(t, stderr)
	for _, s := range quantops.All() {
		for _, want := range []string{s.Name, s.Doc, s.Paper, bitsText(span(s.Weights))} {
			require.Contains(t, stdout, want, s.Name)
		}
		for _, o := range s.Options {
			require.Contains(t, stdout, o.Name+"="+o.Default+": "+o.Doc, s.Name)
		}
	}
	for _, s := range models.All() {
		require.Contains(t, stdout, s.Doc)
		require.Contains(t, stdout, s.Paper)
	}
	for _, s := range datasets.All() {
		require.Contains(t, stdout, s.Doc)
		require.Contains(t, stdout, s.License)
	}
	require.NotContains(t, stdout, "0-0 bits")
	for kind, heading := range map[string]string{"methods": "METHOD", "models": "MODEL", "datasets": "DATA SET"} {
		stdout, _ := succeed(t, "list", kind)
		require.True(t, strings.HasPrefix(strings.TrimSpace(stdout), heading+"  "), stdout)
	}
}

func TestListForPrograms(t *testing.T) {
	stdout, _ := succeed(t, "list", "--json")
	var l listing
	require.NoError(t, json.Unmarshal([]byte(stdout), &l))
	require.Len(t, l.Methods, len(quantops.All()))
	require.Len(t, l.Models, len(models.All()))
	require.Len(t, l.Datasets, len(datasets.All()))
	for i, s := range quantops.All() {
		m := l.Methods[i]
		require.Equal(t, []string{s.Name, s.Doc, s.Paper}, []string{m.Name, m.Doc, m.Paper})
		require.Equal(t, span(s.Weights), m.WeightBits)
		require.Equal(t, span(s.Activations), m.ActivationBits)
		require.Len(t, m.Options, len(s.Options))
	}
	for _, m := range l.Models {
		require.NotContains(t, []string{m.Name, m.Doc, m.Paper}, "")
	}
	for _, d := range l.Datasets {
		require.NotContains(t, []string{d.Name, d.Doc, d.Source, d.License}, "")
	}
	stdout, _ = succeed(t, "list", "models", "--json")
	var only map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &only))
	require.Len(t, only, 1)
	require.Contains(t, only, "models")
	require.Nil(t, span(quantops.Bits{}))
	require.Equal(t, "-", bitsText(nil))
}

func TestVersion(t *testing.T) {
	stdout, _ := succeed(t, "version")
	require.True(t, strings.HasPrefix(stdout, "goqat "), stdout)
	require.Contains(t, stdout, runtime.Version())
	require.Contains(t, stdout, runtime.GOOS+"/"+runtime.GOARCH)
	stdout, _ = succeed(t, "version", "--json")
	var v versions
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	require.Equal(t, readVersions(), v)
	require.NotEmpty(t, v.Goqat)
}
