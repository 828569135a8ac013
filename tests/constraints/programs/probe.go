// Completes a TLS handshake with 127.0.0.1:PORT as HOST, trusting the roots in FILE alone: probe HOST PORT FILE
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"runtime"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Println(runtime.Version())
		return
	}
	pem, err := os.ReadFile(os.Args[3])
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{ServerName: os.Args[1], RootCAs: roots}
	connection, err := tls.Dial("tcp", "127.0.0.1:"+os.Args[2], config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	connection.Close()
}
