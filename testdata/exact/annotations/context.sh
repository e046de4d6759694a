echo hi > a
