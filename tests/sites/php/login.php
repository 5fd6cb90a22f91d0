<?php
// SITE_REGENERATE says how the session id is renewed: "delete", "keep" (PHP's default: the old
// session stays) or "none".
session_start();
if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    echo '<form method="post"><input name="username"><input name="password"></form>';
    exit;
}
$name = $_POST['username'] ?? '';
if (!is_string($name) || ($_POST['password'] ?? '') !== 'secret-' . $name) {
    header('Location: /login.php?error=1');
    exit;
}
$_SESSION['user'] = $name;
$regenerate = getenv('SITE_REGENERATE');
if ($regenerate !== 'none') {
    session_regenerate_id($regenerate === 'delete');
}
header('Location: /index.php');
