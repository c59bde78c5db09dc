package script_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachBehaviourIsShown: what the package's comment names is there, and
// each transcript has its place in it.
func TestEachBehaviourIsShown(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := ""
	for _, pattern := range []string{"*_test.go", "../reconcile/*_test.go", "../schedule/*_test.go"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			tests += string(b)
		}
	}
	named := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^//\t    (.*)$`).FindAllStringSubmatch(string(doc), -1) {
		for _, name := range strings.Fields(line[1]) {
			named[name] = true
			if strings.HasPrefix(name, "Test") {
				if !strings.Contains(tests, "func "+name+"(") {
					t.Errorf("there is no %s", name)
				}
			} else if _, err := os.Stat("testdata/" + name + ".txt"); err != nil {
				t.Error(err)
			}
		}
	}
	files, _ := filepath.Glob("testdata/*.txt")
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".txt"); !named[name] {
			t.Errorf("say in doc.go which behaviour %s shows", name)
		}
	}
}
