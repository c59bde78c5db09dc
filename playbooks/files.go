package playbooks

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files are the files named, and those below the folders named whose names
// end with suffix, in the order of their paths. Vendored packages, testdata
// and hidden folders are left out unless they are named.
func Files(paths []string, suffix string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case e.IsDir() && p != path && (e.Name() == "vendor" || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".")):
				return filepath.SkipDir
			case !e.IsDir() && strings.HasSuffix(e.Name(), suffix):
				files = append(files, p)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}
