<?php
// The same for scripts.
require ABSPATH . 'wp-load.php';
$user = wp_get_current_user();
header('Content-Type: application/json');
echo json_encode(['user' => $user->exists() ? $user->user_login : null]);
