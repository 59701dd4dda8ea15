// Command script is a baseline: what a developer writes in an afternoon to prefetch a list
// of URLs, with the vendor's own Go SDK. It reads lines with a URL and an optional value
// of the header X-Task, makes one call for each line from 8 workers, and prints the
// JobIds.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/prefetch-operator/teo-prefetch-operator/test/bench/baseline/edgeone"
)

func main() {
	endpoint := flag.String("teo-endpoint", "", "URL of the EdgeOne API")
	zoneID := flag.String("zone", "", "zone of the URLs")
	list := flag.String("list", "", "file with the URLs")
	flag.Parse()
	if err := run(*endpoint, *zoneID, *list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(endpoint, zoneID, list string) error {
	client, err := edgeone.New(endpoint, 5)
	if err != nil {
		return err
	}
	file, err := os.Open(list)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := make(chan string)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for line := range lines {
				url, value, special := strings.Cut(line, " ")
				var headers map[string]string
				if special {
					headers = map[string]string{"X-Task": value}
				}
				jobID, err := client.Prefetch(context.Background(), zoneID, []string{url}, headers)
				if err != nil {
					jobID = err.Error()
				}
				fmt.Printf("%s %s\n", url, jobID)
			}
		})
	}
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		lines <- scanner.Text()
	}
	close(lines)
	workers.Wait()
	return scanner.Err()
}
