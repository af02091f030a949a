package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/quantops"
	"github.com/spf13/cobra"
)

// listing is everything that has a name, as `goqat list --json` prints it.
type listing struct {
	Methods  []methodEntry  `json:"methods,omitempty"`
	Models   []modelEntry   `json:"models,omitempty"`
	Datasets []datasetEntry `json:"datasets,omitempty"`
}

type methodEntry struct {
	Name           string        `json:"name"`
	Doc            string        `json:"doc"`
	Paper          string        `json:"paper"`
	WeightBits     []int         `json:"weight_bits"`     // least and most
	ActivationBits []int         `json:"activation_bits"` // least and most
	Codebook       bool          `json:"codebook,omitempty"`
	Options        []optionEntry `json:"options,omitempty"`
	Page           string        `json:"page,omitempty"` // of a method asked for by name
}

type optionEntry struct {
	Name    string   `json:"name"`
	Doc     string   `json:"doc"`
	Default string   `json:"default"`
	Values  []string `json:"values,omitempty"`
}

type modelEntry struct {
	Name  string `json:"name"`
	Doc   string `json:"doc"`
	Paper string `json:"paper"`
}

type datasetEntry struct {
	Name    string `json:"name"`
	Doc     string `json:"doc"`
	Source  string `json:"source"`
	License string `json:"license"`
}

var listKinds = []string{"methods", "models", "datasets"}

func newList() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list [methods|models|datasets|METHOD]", Short: "List methods, models and data sets, or show the page of a method",
		Long: `List methods, models and data sets, with papers and bits, or show the page of one method: formula, levels, gradient,
and when to use it.`,
		Args: arguments(0, 1, "at most one of methods, models and datasets"), ValidArgs: append(slices.Clip(listKinds), bareMethodNames()...),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := listFor(args)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(l)
			}
			return l.print(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// bareMethodNames are the names of methods without bits.
func bareMethodNames() (names []string) {
	for _, s := range quantops.All() {
		names = append(names, s.Name)
	}
	return names
}

// listFor returns what the argument asks for: a kind, a method with its page, or without any everything.
func listFor(args []string) (listing, error) {
	if len(args) == 0 {
		return newListing(listKinds), nil
	}
	if slices.Contains(listKinds, args[0]) {
		return newListing(args), nil
	}
	s, err := quantops.Lookup(args[0])
	if err != nil {
		return listing{}, usagef("list: no kind %q: want one of %s, or one of the methods %s", args[0], strings.Join(listKinds, ", "), strings.Join(bareMethodNames(), ", "))
	}
	entry := newMethodEntry(s)
	entry.Page = s.Page()
	return listing{Methods: []methodEntry{entry}}, nil
}

func newListing(kinds []string) listing {
	var l listing
	if slices.Contains(kinds, "methods") {
		for _, s := range quantops.All() {
			l.Methods = append(l.Methods, newMethodEntry(s))
		}
	}
	if slices.Contains(kinds, "models") {
		for _, s := range models.All() {
			l.Models = append(l.Models, modelEntry{s.Name, s.Doc, s.Paper})
		}
	}
	if slices.Contains(kinds, "datasets") {
		for _, s := range datasets.All() {
			l.Datasets = append(l.Datasets, datasetEntry{s.Name, s.Doc, s.Source, s.License})
		}
	}
	return l
}

func newMethodEntry(s *quantops.Spec) methodEntry {
	e := methodEntry{Name: s.Name, Doc: s.Doc, Paper: s.Paper, WeightBits: span(s.Weights), ActivationBits: span(s.Activations), Codebook: s.NewCodebook != nil}
	for _, o := range s.Options {
		e.Options = append(e.Options, optionEntry{o.Name, o.Doc, o.Default, o.Values})
	}
	return e
}

// weightsText tells the bits of weights, or that the method has a codebook without bits.
func (m *methodEntry) weightsText() string {
	if m.Codebook && m.WeightBits == nil {
		return "codebook"
	}
	return bitsText(m.WeightBits)
}

func span(b quantops.Bits) []int {
	if b.Max == 0 {
		return nil
	}
	return []int{b.Min, b.Max}
}

// print writes the listing for people.
func (l listing) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(l.Methods) == 1 && l.Methods[0].Page != "" {
		return l.Methods[0].printPage(w)
	}
	if len(l.Methods) > 0 {
		fmt.Fprintln(t, "METHOD\tWEIGHTS\tACTIVATIONS\tWHAT IT IS")
	}
	for _, m := range l.Methods {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n\t\t\t%s\n", m.Name, m.weightsText(), bitsText(m.ActivationBits), m.Doc, m.Paper)
		for _, o := range m.Options {
			fmt.Fprintf(t, "\t\t\t  %s=%s: %s\n", o.Name, o.Default, o.Doc)
		}
	}
	if len(l.Models) > 0 {
		fmt.Fprintln(t, "\nMODEL\tWHAT IT IS")
	}
	for _, m := range l.Models {
		fmt.Fprintf(t, "%s\t%s\n\t%s\n", m.Name, m.Doc, m.Paper)
	}
	if len(l.Datasets) > 0 {
		fmt.Fprintln(t, "\nDATA SET\tWHAT IT IS")
	}
	for _, d := range l.Datasets {
		fmt.Fprintf(t, "%s\t%s\n\t%s (%s)\n", d.Name, d.Doc, d.Source, d.License)
	}
	return t.Flush()
}

// printPage writes the page of a method, and what options it has.
func (m *methodEntry) printPage(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s\n\n%s\nweights %s, activations %s\n", m.Name, m.Doc, m.Page, m.weightsText(), bitsText(m.ActivationBits))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range m.Options {
		fmt.Fprintf(t, "  %s=%s\t%s\n", o.Name, o.Default, o.Doc)
	}
	return t.Flush()
}

func bitsText(b []int) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("%d-%d bits", b[0], b[1])
}
