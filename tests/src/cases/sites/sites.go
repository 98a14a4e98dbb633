// Reads the beginning of a file from three places, as the workload `sites` does.
package main

import (
	"fmt"
	"os"
	"strconv"
)

type reader struct {
	file   *os.File
	buffer [4096]byte
}

//go:noinline
func siteSmall(r *reader) int {
	returned, _ := r.file.ReadAt(r.buffer[:1009], 0)
	return returned
}

//go:noinline
func (r *reader) siteLarge() int {
	returned, _ := r.file.ReadAt(r.buffer[:4001], 0)
	return returned
}

//go:noinline
func siteMiddle(r *reader) int {
	returned, _ := r.file.ReadAt(r.buffer[:2003], 0)
	return returned
}

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	calls, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	r := &reader{file: file}
	var sums [3]int
	var state uint32 = 1
	for call := 0; call < calls; call++ {
		state = state*1103515245 + 12345
		switch digit := (state >> 16) % 10; {
		case digit < 5:
			sums[0] += siteSmall(r)
		case digit < 8:
			sums[1] += r.siteLarge()
		default:
			sums[2] += siteMiddle(r)
		}
	}
	fmt.Println(sums[0], sums[1], sums[2])
}
