<?php
// Answers every request with an account of it, and writes the same line to the file ORACLE_LOG.
preg_match('/^[0-9A-Za-z]*/', $_SERVER['HTTP_X_ORACLE'] ?? '', $id); // as far as it is a name
$line = implode(' ', [
    $id[0],
    $_SERVER['REQUEST_METHOD'],
    $_SERVER['REQUEST_URI'],
    bin2hex(file_get_contents('php://input')),
]);
file_put_contents(getenv('ORACLE_LOG'), $line . "\n", FILE_APPEND | LOCK_EX);
header('Content-Type: text/plain');
header('Content-Length: ' . strlen($line));
echo $line;
