package interop_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Every test that README.md names is there.
func TestReadmeNamesTests(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("*_test.go")
	root, _ := filepath.Glob("../*_test.go")
	there := map[string]bool{}
	for _, f := range append(files, root...) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
	}
	named := regexp.MustCompile("`(Test\\w+)(/([\\w-]+))?").FindAllSubmatch(readme, -1)
	if len(named) < 20 {
		t.Errorf("README.md names %d tests, want the whole list", len(named))
	}
	for _, m := range named {
		if !there[string(m[1])] {
			t.Errorf("README.md names %s, which is no test", m[1])
		}
		if script := string(m[3]); string(m[1]) == "TestCoreScripts" {
			if _, err := os.Stat("../testdata/scripts/" + script + ".txt"); err != nil {
				t.Errorf("README.md names a script that is not there: %v", err)
			}
		}
	}
}
