package audit

type fileSystem interface{}
