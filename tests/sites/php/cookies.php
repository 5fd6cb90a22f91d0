<?php
// What PHP makes of the Cookie line, in hex; an array of cookies is null.
header('Content-Type: application/json');
$read = [];
foreach ($_COOKIE as $name => $value) {
    $read[bin2hex((string) $name)] = is_string($value) ? bin2hex($value) : null;
}
echo json_encode((object) $read);
