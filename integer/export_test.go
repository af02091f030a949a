package integer

// Index returns the number of the program's value that holds codes or a wide value.
func (v Value) Index() int { return v.index }

// WriteHeader makes a payload edited by a test a file with a right checksum again.
var WriteHeader = writeHeader
