//go:build !everybits

package main

const everyBits = false
