// Reads connections, one line of base64 each, by net/http; prints what it takes for requests.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
)

type request struct {
	Method string `json:"method"`
	Target string `json:"target"`
	Body   string `json:"body"`
}

type reading struct {
	Requests []request `json:"requests"`
	Rest     string    `json:"rest"`
}

func unfinished(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF)
}

func read(data []byte) reading {
	result := reading{Requests: []request{}}
	reader := bufio.NewReader(bytes.NewReader(data))
	for {
		asked, err := http.ReadRequest(reader)
		if errors.Is(err, io.EOF) {
			return result
		}
		if err == nil {
			var body []byte
			body, err = io.ReadAll(asked.Body)
			if err == nil {
				encoded := base64.StdEncoding.EncodeToString(body)
				result.Requests = append(result.Requests, request{asked.Method, asked.RequestURI, encoded})
				continue
			}
		}
		result.Rest = err.Error()
		if unfinished(err) {
			result.Rest = "unfinished"
		}
		return result
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		data, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		if err := out.Encode(read(data)); err != nil {
			panic(err)
		}
	}
}
