<?php
// Whom DokuWiki takes the client for; it signs people in on any page.
define('DOKU_INC', '/usr/share/dokuwiki/');
require_once DOKU_INC . 'inc/init.php';
header('Content-Type: application/json');
echo json_encode(['user' => $INPUT->server->str('REMOTE_USER') ?: null]);
