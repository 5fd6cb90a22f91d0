<?php
// Says whom WordPress takes the browser for.
require ABSPATH . 'wp-load.php';
$user = wp_get_current_user();
echo 'hello ' . ($user->exists() ? $user->user_login : 'anonymous');
