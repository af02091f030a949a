//go:build everybits

package main

const everyBits = true
