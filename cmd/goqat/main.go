// Goqat trains small convolutional networks on few levels, exports their integers and runs them without floating point.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
